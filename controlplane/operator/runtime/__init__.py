"""Level-triggered reconciling: a queue per kind, a loop, an executor of plans, a lease."""
