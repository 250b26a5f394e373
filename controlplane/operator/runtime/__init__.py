"""Level-triggered reconciling: caches fed by watches, a queue per kind, a lease, a loop."""
