"""Notices to tenants over HTTP."""
