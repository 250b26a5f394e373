"""One revision per schema change, oldest first by number."""
