"""Rules of the books that revision 0010 adds, of storage and credits: (view, rule, query)."""

RULES = (
    (
        "unpaid_storage",
        "a volume's interval is paid or waived to the millisecond (I9)",
        """
        SELECT id::text, billed_p + waived_p,
            rated_p + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)
        FROM volume_intervals
        WHERE billed_p + waived_p
            <> rated_p + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)
        """,
    ),
    (
        "unproven_storage",
        "no storage is billed beyond its proof (I9)",
        """
        SELECT id::text, billed_ms, proven_ms FROM volume_intervals WHERE billed_ms > proven_ms
        """,
    ),
    (
        "wrong_storage_charges",
        "a volume's charge is what the ledger moved (I9)",
        """
        SELECT coalesce(i.id, l.interval_id)::text, coalesce(i.billed_p, 0), coalesce(l.sum_p, 0)
        FROM volume_intervals i FULL JOIN (
            SELECT t.interval_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = 'storage' AND e.amount_p > 0 GROUP BY t.interval_id
        ) l ON l.interval_id = i.id
        WHERE coalesce(i.billed_p, 0) <> coalesce(l.sum_p, 0)
        """,
    ),
    (
        "excessive_storage_charges",
        "a storage charge is at most rate x time (I9)",
        """
        SELECT t.id::text, e.amount_p,
            div(t.rate_p_per_hour::numeric * t.to_ms, 3600000)
            - div(t.rate_p_per_hour::numeric * t.from_ms, 3600000)
        FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE t.kind = 'storage' AND e.amount_p
            > div(t.rate_p_per_hour::numeric * t.to_ms, 3600000)
            - div(t.rate_p_per_hour::numeric * t.from_ms, 3600000)
        """,
    ),
    (
        "storage_charged_twice",
        "no two storage charges pay for the same time (I9)",
        """
        SELECT id::text, from_ms, earlier FROM (
            SELECT id, from_ms, lag(to_ms) OVER (PARTITION BY interval_id ORDER BY to_ms) AS earlier
            FROM ledger_transactions WHERE kind = 'storage'
        ) AS ticks WHERE from_ms < earlier
        """,
    ),
    (
        "wrong_spot_credits",
        "a credit of interrupted spot time is what the ledger gave back",
        """
        SELECT i.id::text, coalesce(i.credited_p, 0), coalesce(l.sum_p, 0)
        FROM gpu_intervals i LEFT JOIN (
            SELECT charged.interval_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions note
            JOIN ledger_transactions charged ON charged.id = note.corrects_id
            JOIN ledger_entries e ON e.transaction_id = note.id AND e.amount_p > 0
            WHERE note.kind = 'credit_note' AND note.author = 'metering'
            GROUP BY charged.interval_id
        ) l ON l.interval_id = i.id
        WHERE coalesce(i.credited_p, 0) <> coalesce(l.sum_p, 0)
        """,
    ),
    (
        "wrong_commitment_dues",
        "what was collected of commitments is what the ledger moved",
        """
        SELECT coalesce(d.tenant_id, l.tenant_id)::text, coalesce(d.paid_p, 0),
            coalesce(l.sum_p, 0)
        FROM (
            SELECT tenant_id, sum(paid_p) AS paid_p FROM commitment_dues GROUP BY tenant_id
        ) d FULL JOIN (
            SELECT t.tenant_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = 'commitment' AND e.amount_p > 0 GROUP BY t.tenant_id
        ) l ON l.tenant_id = d.tenant_id
        WHERE coalesce(d.paid_p, 0) <> coalesce(l.sum_p, 0)
        """,
    ),
)
# A replica may change its rate at the end of a tick, to a reservation's and back.
CHANGED = (
    (
        "unpaid_gpu_time",
        "a GPU interval is paid or waived to the millisecond (I9)",
        """
        SELECT id::text, billed_p + waived_p,
            rated_p + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)
        FROM gpu_intervals
        WHERE billed_p + waived_p
            <> rated_p + div(rate_p_per_hour::numeric * (billed_ms - rated_from_ms), 3600000)
        """,
    ),
    (
        "excessive_gpu_charges",
        "a GPU charge is at most rate x time, rounded up (I9)",
        """
        SELECT t.id::text, e.amount_p,
            div(t.rate_p_per_hour::numeric * (t.to_ms - t.from_ms) + 3599999, 3600000)
        FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE t.kind = 'gpu_time' AND e.amount_p
            > div(t.rate_p_per_hour::numeric * (t.to_ms - t.from_ms) + 3599999, 3600000)
        """,
    ),
)
