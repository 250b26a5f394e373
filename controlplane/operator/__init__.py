"""The operator: makes deployments, endpoints and replicas true on a cluster and keeps them so."""
