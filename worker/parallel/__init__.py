"""Ranks that share the routed experts of every layer between them."""
