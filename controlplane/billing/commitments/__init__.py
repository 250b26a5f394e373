"""Commitments: what a tenant has promised to use, at what rate, and what it owes of that."""
