"""Tenants' namespaces: what is in them, what must be, and what is put back."""
