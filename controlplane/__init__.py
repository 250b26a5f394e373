"""Flashplane's control plane: gateway, money, REST API, background jobs and supervisor."""

from importlib.metadata import version

__version__ = version("flashplane")
