"""Fixtures of money tests, for this folder and below."""

from support.shop import sessions, shop

__all__ = ["sessions", "shop"]
