"""`flashplane up`: the whole product as one process tree on one machine."""
