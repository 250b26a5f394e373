"""Flashplane's control plane: gateway, money, REST API, background jobs and supervisor."""
