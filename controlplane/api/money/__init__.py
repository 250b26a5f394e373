"""Routes of accounts: what moved on them, what may move, what is owed."""
