"""A database restored from a dump, brought up to what the journals tell."""
