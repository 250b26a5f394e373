"""The data plane: customers' requests admitted, routed, streamed and metered. See README.md."""
