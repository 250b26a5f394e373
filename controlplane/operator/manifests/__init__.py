"""Kubernetes objects as plain data: engine pods, how far they are, what tenants' namespaces hold."""
