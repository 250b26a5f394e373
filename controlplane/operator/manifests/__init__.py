"""Kubernetes objects as plain data: engine pods, and what namespaces of tenants hold."""
