"""Schema history, run by `controlplane.schema`."""
