"""How fast the worker's engine is, against a floor or a rival timed in the same run."""
