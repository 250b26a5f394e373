"""Rules of the books that revision 0010 adds, of storage and credits: (view, rule, query)."""

from migrations import life_rules

RULES = (
    (
        "unpaid_storage",
        "a volume's interval is paid or waived to the millisecond (I9)",
        life_rules.unpaid("volume_intervals", life_rules.AT_RATES),
    ),
    (
        "unproven_storage",
        "no storage is billed beyond its proof (I9)",
        life_rules.unproven("volume_intervals"),
    ),
    (
        "wrong_storage_charges",
        "a volume's charge is what the ledger moved (I9)",
        life_rules.wrong_charges("volume_intervals", "storage"),
    ),
    (
        "excessive_storage_charges",
        "a storage charge is at most rate x time (I9)",
        life_rules.excessive_charges("storage", life_rules.OF_ONE_RATE),
    ),
    (
        "storage_charged_twice",
        "no two storage charges pay for the same time (I9)",
        life_rules.charged_twice("storage"),
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
        life_rules.unpaid("gpu_intervals", life_rules.AT_RATES),
    ),
    (
        "excessive_gpu_charges",
        "a GPU charge is at most rate x time, rounded up (I9)",
        life_rules.excessive_charges("gpu_time", life_rules.OF_RATES),
    ),
)
