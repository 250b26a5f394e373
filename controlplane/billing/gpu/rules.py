"""The books' rules of GPU time, of storage and of their credits. Read by `billing.books`.

Each selects what breaks it: whose, what is written, what it should be.
"""

# What is charged by time, by the table of its intervals: its name, and its ledger transactions'.
_METERED = {"gpu_intervals": ("GPU", "gpu_time"), "volume_intervals": ("storage", "storage")}


def _rules_of(table: str, name: str, kind: str) -> dict[str, str]:
    return {
        f"a {name} interval is paid or waived to the millisecond": f"""
        SELECT id::text, billed_p + waived_p, div(rate_p_per_hour::numeric * billed_ms, 3600000)
        FROM {table}
        WHERE billed_p + waived_p <> div(rate_p_per_hour::numeric * billed_ms, 3600000)""",
        f"no {name} time is billed beyond its proof": f"""
        SELECT id::text, billed_ms, proven_ms FROM {table} WHERE billed_ms > proven_ms""",
        f"a {name} interval's charge is what the ledger moved": f"""
        SELECT coalesce(i.id, l.interval_id)::text, coalesce(i.billed_p, 0), coalesce(l.sum_p, 0)
        FROM {table} i FULL JOIN (
            SELECT t.interval_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = '{kind}' AND e.amount_p > 0 GROUP BY t.interval_id
        ) l ON l.interval_id = i.id
        WHERE coalesce(i.billed_p, 0) <> coalesce(l.sum_p, 0)""",
        f"a {name} charge is at most rate x time": f"""
        SELECT t.id::text, e.amount_p,
               div(t.rate_p_per_hour::numeric * t.to_ms, 3600000)
               - div(t.rate_p_per_hour::numeric * t.from_ms, 3600000)
        FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE t.kind = '{kind}' AND e.amount_p
            > div(t.rate_p_per_hour::numeric * t.to_ms, 3600000)
            - div(t.rate_p_per_hour::numeric * t.from_ms, 3600000)""",
        f"no two {name} charges pay for the same time": f"""
        SELECT id::text, from_ms, earlier FROM (
            SELECT id, from_ms, lag(to_ms) OVER (PARTITION BY interval_id ORDER BY to_ms) AS earlier
            FROM ledger_transactions WHERE kind = '{kind}'
        ) AS ticks WHERE from_ms < earlier""",
    }


RULES = {
    rule: query
    for table, names in _METERED.items()
    for rule, query in _rules_of(table, *names).items()
} | {
    "a credit of interrupted spot time is what the ledger gave back": """
        SELECT i.id::text, i.credited_p, coalesce(l.sum_p, 0)
        FROM gpu_intervals i LEFT JOIN (
            SELECT charged.interval_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions note
            JOIN ledger_transactions charged ON charged.id = note.corrects_id
            JOIN ledger_entries e ON e.transaction_id = note.id AND e.amount_p > 0
            WHERE note.kind = 'credit_note' AND note.author = 'metering'
            GROUP BY charged.interval_id
        ) l ON l.interval_id = i.id
        WHERE coalesce(i.credited_p, 0) <> coalesce(l.sum_p, 0)""",
}
