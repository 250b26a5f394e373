"""Invoices as people get them: CSV, HTML and PDF. Pure: the same invoice gives the same bytes."""
