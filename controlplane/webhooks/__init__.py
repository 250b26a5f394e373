"""Notices to tenants' own endpoints."""
