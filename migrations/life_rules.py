"""Queries of the rules of the books that are the same for every table of metered lives.

Called by the rules of revisions 0004, of GPU time, and 0010, of storage; each selects what breaks
it. `kind` is that of the ledger's transactions, which pay for the lives in `table`.
"""

# What a life costs: at one rate, and at rates that change where a tick ends.
AT_ONE_RATE = "div(rate_p_per_hour::numeric * billed_ms, 3600000)"
AT_RATES = "rated_p + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)"
# The most that a stretch costs: at one rate, and rounded up where the rate may have changed.
OF_ONE_RATE = (
    "div(t.rate_p_per_hour::numeric * t.to_ms, 3600000)"
    " - div(t.rate_p_per_hour::numeric * t.from_ms, 3600000)"
)
OF_RATES = "div(t.rate_p_per_hour::numeric * (t.to_ms - t.from_ms) + 3599999, 3600000)"


def unpaid(table: str, cost: str) -> str:
    """A life is paid or waived to the millisecond."""
    return f"""
        SELECT id::text, billed_p + waived_p, {cost}
        FROM {table} WHERE billed_p + waived_p <> {cost}
    """


def unproven(table: str) -> str:
    """Nothing is billed beyond its proof."""
    return f"SELECT id::text, billed_ms, proven_ms FROM {table} WHERE billed_ms > proven_ms"


def wrong_charges(table: str, kind: str) -> str:
    """A life's charge is what the ledger moved."""
    return f"""
        SELECT coalesce(i.id, l.interval_id)::text, coalesce(i.billed_p, 0), coalesce(l.sum_p, 0)
        FROM {table} i FULL JOIN (
            SELECT t.interval_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = '{kind}' AND e.amount_p > 0 GROUP BY t.interval_id
        ) l ON l.interval_id = i.id
        WHERE coalesce(i.billed_p, 0) <> coalesce(l.sum_p, 0)
    """


def excessive_charges(kind: str, most: str) -> str:
    """A charge is at most rate x time."""
    return f"""
        SELECT t.id::text, e.amount_p, {most}
        FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE t.kind = '{kind}' AND e.amount_p > {most}
    """


def charged_twice(kind: str) -> str:
    """No two charges pay for the same time."""
    return f"""
        SELECT id::text, from_ms, earlier FROM (
            SELECT id, from_ms, lag(to_ms) OVER (PARTITION BY interval_id ORDER BY to_ms) AS earlier
            FROM ledger_transactions WHERE kind = '{kind}'
        ) AS ticks WHERE from_ms < earlier
    """
