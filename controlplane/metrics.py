"""Prometheus objects of the money path. Kept by usage, billing, webhooks, audit and jobs."""

from prometheus_client import Counter, Gauge

JOURNAL_DAMAGES = Counter(
    "flashplane_journal_damages", "Journal segments that could not be read to their end"
)
SETTLED_REQUESTS = Counter("flashplane_settled_requests", "Requests settled")
SETTLED_PICODOLLARS = Counter("flashplane_settled_picodollars", "Sum of all charges, in p$")
BILLING_DISCREPANCIES = Counter(
    "flashplane_billing_discrepancies",
    "Requests billed for fewer tokens than their engine reported",
    ["reason"],
)
REJECTED_USAGE = Counter(
    "flashplane_rejected_usage", "Staged usage rows that cannot be settled and wait for a person"
)
RELEASED_HOLDS = Counter(
    "flashplane_released_holds", "Holds of dead gateways released without a bill"
)
RECONCILIATION_FINDINGS = Counter(
    "flashplane_reconciliation_findings",
    "Requests whose bill and whose engines' journals differ",
    ["kind"],
)
USAGE_WAITING = Gauge("flashplane_usage_waiting", "Staged usage rows still in the queue")
USAGE_STRAYS = Gauge(
    "flashplane_usage_strays", "Settled requests whose id is of no month: a clock was wrong"
)
GPU_TIME_PICODOLLARS = Counter(
    "flashplane_gpu_time_picodollars", "Sum of all charges of GPU time, in p$"
)
GPU_TIME_DISCREPANCIES = Counter(
    "flashplane_gpu_time_discrepancies",
    "Proofs or ticks of GPU time not billed, or not whole",
    ["reason"],
)
FINAL_INVOICES = Counter("flashplane_final_invoices", "Invoices made final")
REFUSED_INVOICES = Counter(
    "flashplane_refused_invoices", "Invoices that contradict the books and wait for a person"
)
WEBHOOK_ATTEMPTS = Counter(
    "flashplane_webhook_attempts",
    "Attempts to tell a tenant's endpoint: delivered, failed (it is repeated) or dead (given up)",
    ["outcome"],
)
AUDIT_ANCHORED_AT = Gauge(
    "flashplane_audit_anchored_at_seconds",
    "Unix time of the last anchor of the audit log, at first of the jobs' start; 0: no anchors",
)
