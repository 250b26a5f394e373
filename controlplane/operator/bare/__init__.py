"""Bare GPUs: endpoints with a customer's image; their pods, their proofs, no engine."""
