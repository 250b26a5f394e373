"""Prometheus objects of the operator's runtime; `main` serves them."""

from prometheus_client import Counter, Gauge, Histogram

QUEUED_KEYS = Gauge(
    "flashplane_operator_queued_keys", "Keys that wait for a worker", ["controller"]
)
WAITED_SECONDS = Histogram(
    "flashplane_operator_waited_seconds", "Time from a key's adding to its round", ["controller"]
)
ROUND_SECONDS = Histogram(
    "flashplane_operator_round_seconds", "Duration of a round: plan and writes", ["controller"]
)
ROUNDS = Counter(
    "flashplane_operator_rounds", "Rounds by how they ended", ["controller", "outcome"]
)
WRITES = Counter(
    "flashplane_operator_writes",
    "Writes to the API server; none while nothing changes",
    ["resource", "action", "outcome"],
)
EVENTS_DROPPED = Counter(
    "flashplane_operator_events_dropped", "Events not told: too many, or refused", ["reason"]
)
LEADING = Gauge("flashplane_operator_leading", "1 while this operator holds the lease")
LEASE_TRANSITIONS = Gauge(
    "flashplane_operator_lease_transitions", "How often the lead has changed hands"
)
SCHEMA_CURRENT = Gauge(
    "flashplane_operator_schema_current", "1 when the cluster's kinds are this version's"
)
