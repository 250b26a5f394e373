"""The operator on a real API server with thousands of replicas: `python -m benchmarks.operator`."""
