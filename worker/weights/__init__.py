"""Brings weights to a node's disk, whole and verified. `flashplane-worker fetch` runs it."""
