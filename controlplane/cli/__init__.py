"""`flashplane`: the command line."""
