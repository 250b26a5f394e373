"""Inference engines as the operator runs and watches them: one profile each."""
