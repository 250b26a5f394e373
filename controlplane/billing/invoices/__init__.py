"""Invoices: one a tenant and month, made from the ledger, immutable once final."""
