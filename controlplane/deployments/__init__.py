"""Deployments as customers order them: rows, what they cost, and their way to the cluster."""
