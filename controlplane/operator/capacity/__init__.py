"""Nodes, what is free on them, and where a replica's GPUs are set aside. Decided without I/O."""
