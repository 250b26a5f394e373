"""Replicas: placed, started, proven, published, drained and released, one key at a time.

`plan` decides, `monitor` and `publisher` speak with engines and the store, `controller` wires them.
"""
