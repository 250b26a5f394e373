"""The rules of the books as revision 0004 makes them: (view, rule in words, what breaks it).

Amounts are p$. Usage rows expire one day, so rules that compare them with the ledger ask of the
rows that are there, and of charges no older than the oldest of them.
"""

from migrations import life_rules

_LEDGER = (
    (
        "unbalanced_ledger",
        "all entries sum to zero (I1)",
        """
        SELECT 'ledger', sum(amount_p), 0 FROM ledger_entries HAVING sum(amount_p) <> 0
        """,
    ),
    (
        "unbalanced_transactions",
        "every transaction's entries sum to zero (I1)",
        """
        SELECT transaction_id::text, sum(amount_p), 0
        FROM ledger_entries GROUP BY transaction_id HAVING sum(amount_p) <> 0
        """,
    ),
    (
        "empty_transactions",
        "every transaction has entries (I1)",
        """
        SELECT t.id::text, 0::numeric, 2
        FROM ledger_transactions t
        WHERE NOT EXISTS (SELECT FROM ledger_entries e WHERE e.transaction_id = t.id)
        """,
    ),
    (
        "wrong_balances",
        "a balance is the sum of its entries (I2)",
        """
        SELECT a.id::text, a.balance_p, coalesce(e.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount_p) AS sum_p FROM ledger_entries GROUP BY account_id
        ) e ON e.account_id = a.id
        WHERE a.balance_p <> coalesce(e.sum_p, 0)
        """,
    ),
    (
        "wrong_grants",
        "what is left of given money is the sum of what was given and spent (I2)",
        """
        SELECT a.id::text, a.granted_p, coalesce(e.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(granted_p) AS sum_p FROM ledger_entries GROUP BY account_id
        ) e ON e.account_id = a.id
        WHERE a.granted_p <> coalesce(e.sum_p, 0)
        """,
    ),
    (
        "wrong_holds",
        "the held sum is the sum of open holds (I4)",
        """
        SELECT a.id::text, a.held_p, coalesce(h.sum_p, 0)
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount_p) AS sum_p FROM holds
            WHERE state = 'open' GROUP BY account_id
        ) h ON h.account_id = a.id
        WHERE a.held_p <> coalesce(h.sum_p, 0)
        """,
    ),
    (
        "overspent_accounts",
        "a tenant's balance, credit and holds leave nothing below zero (I5)",
        """
        SELECT id::text, balance_p + credit_limit_p - held_p, 0
        FROM accounts WHERE kind = 'tenant' AND balance_p + credit_limit_p - held_p < 0
        """,
    ),
    (
        "foreign_entries",
        "a transaction moves its own tenant's money and the platform's (I10)",
        """
        SELECT e.id::text, e.amount_p, 0
        FROM ledger_entries e
        JOIN ledger_transactions t ON t.id = e.transaction_id
        JOIN accounts a ON a.id = e.account_id
        WHERE a.tenant_id <> t.tenant_id
        """,
    ),
    (
        "misplaced_entries",
        "each kind of transaction moves its own accounts in its own direction (I1)",
        """
        SELECT e.id::text, e.amount_p, 0
        FROM ledger_entries e
        JOIN ledger_transactions t ON t.id = e.transaction_id
        JOIN accounts a ON a.id = e.account_id
        LEFT JOIN (VALUES
            ('top_up', 'tenant', 1), ('top_up', 'funding', -1),
            ('payment', 'tenant', 1), ('payment', 'tax', 1), ('payment', 'funding', -1),
            ('grant', 'tenant', 1), ('grant', 'promotion', -1),
            ('charge', 'tenant', -1), ('charge', 'revenue', 1),
            ('gpu_time', 'tenant', -1), ('gpu_time', 'revenue', 1),
            ('storage', 'tenant', -1), ('storage', 'revenue', 1),
            ('commitment', 'tenant', -1), ('commitment', 'revenue', 1),
            ('refund', 'tenant', 1), ('refund', 'revenue', -1),
            ('credit_note', 'tenant', 1), ('credit_note', 'revenue', -1),
            ('waiver', 'tenant', 1), ('waiver', 'revenue', -1),
            ('adjustment', 'tenant', 0), ('adjustment', 'adjustments', 0)
        ) AS allowed(kind, account, direction)
            ON allowed.kind = t.kind AND allowed.account = a.kind
        WHERE allowed.kind IS NULL OR allowed.direction * e.amount_p::numeric < 0
        """,
    ),
)
_CORRECTIONS = (
    (
        "overcorrected_transactions",
        "no more comes back of a transaction than it took (I1)",
        """
        SELECT taken.id::text, back.amount_p, taken.amount_p
        FROM (
            SELECT t.id, t.tenant_id, -sum(e.amount_p) AS amount_p
            FROM ledger_transactions t
            JOIN ledger_entries e ON e.transaction_id = t.id
            JOIN accounts a ON a.id = e.account_id AND a.kind = 'tenant'
            WHERE t.id IN (SELECT corrects_id FROM ledger_transactions) GROUP BY t.id
        ) taken
        JOIN (
            SELECT t.corrects_id, sum(e.amount_p) AS amount_p
            FROM ledger_transactions t
            JOIN ledger_entries e ON e.transaction_id = t.id
            JOIN accounts a ON a.id = e.account_id AND a.kind = 'tenant'
            WHERE t.corrects_id IS NOT NULL GROUP BY t.corrects_id
        ) back ON back.corrects_id = taken.id
        WHERE back.amount_p > taken.amount_p
        """,
    ),
    (
        "wrong_granted_back",
        "given money comes back in the proportion in which it was taken",
        """
        SELECT taken.id::text, back.granted_p, div(taken.granted_p * back.amount_p, taken.amount_p)
        FROM (
            SELECT t.id, -sum(e.amount_p) AS amount_p, -sum(e.granted_p) AS granted_p
            FROM ledger_transactions t
            JOIN ledger_entries e ON e.transaction_id = t.id
            JOIN accounts a ON a.id = e.account_id AND a.kind = 'tenant'
            WHERE t.id IN (SELECT corrects_id FROM ledger_transactions) GROUP BY t.id
        ) taken
        JOIN (
            SELECT t.corrects_id, sum(e.amount_p) AS amount_p, sum(e.granted_p) AS granted_p
            FROM ledger_transactions t
            JOIN ledger_entries e ON e.transaction_id = t.id
            JOIN accounts a ON a.id = e.account_id AND a.kind = 'tenant'
            WHERE t.corrects_id IS NOT NULL GROUP BY t.corrects_id
        ) back ON back.corrects_id = taken.id
        WHERE back.granted_p <> div(taken.granted_p * back.amount_p, nullif(taken.amount_p, 0))
        """,
    ),
)
_USAGE = (
    (
        "unexplained_charges",
        "a charge is tokens x rate, class by class (I7)",
        """
        SELECT e.id::text, -e.amount_p, coalesce(e.tokens::numeric * e.rate_p, 0)
        FROM ledger_entries e
        JOIN ledger_transactions t ON t.id = e.transaction_id
        JOIN accounts a ON a.id = e.account_id
        WHERE t.kind = 'charge' AND a.kind = 'tenant'
            AND -e.amount_p <> coalesce(e.tokens::numeric * e.rate_p, 0)
        """,
    ),
    (
        "wrong_usage_charges",
        "a usage row's charge is what the ledger moved (I7)",
        """
        SELECT u.request_id::text, u.charge_p, coalesce(l.sum_p, 0)
        FROM usage_events u LEFT JOIN (
            SELECT t.request_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = 'charge' AND e.amount_p > 0 GROUP BY t.request_id
        ) l ON l.request_id = u.request_id
        WHERE u.charge_p <> coalesce(l.sum_p, 0)
        """,
    ),
    (
        "wrong_usage_tokens",
        "a usage row's tokens are those that the ledger charged (I3)",
        """
        SELECT u.request_id || ' ' || e.token_class, e.tokens,
            CASE e.token_class WHEN 'hit' THEN u.hit_tokens WHEN 'miss' THEN u.miss_tokens
                ELSE u.output_tokens END
        FROM usage_events u
        JOIN ledger_transactions t ON t.request_id = u.request_id
        JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE e.token_class IN ('hit', 'miss', 'output') AND e.tokens <>
            CASE e.token_class WHEN 'hit' THEN u.hit_tokens WHEN 'miss' THEN u.miss_tokens
                ELSE u.output_tokens END
        """,
    ),
    (
        # Ids are ordered by time and usage expires from its old end.
        "charges_without_usage",
        "every charge has its usage row, until that expires (I3)",
        """
        SELECT t.request_id::text, 0::numeric, 1
        FROM ledger_transactions t LEFT JOIN usage_events u ON u.request_id = t.request_id
        WHERE t.kind = 'charge' AND u.request_id IS NULL
            AND t.request_id >= (SELECT request_id FROM usage_events ORDER BY request_id LIMIT 1)
        """,
    ),
    (
        "charges_beyond_holds",
        "a request costs at most what was held for it (I5)",
        """
        SELECT h.request_id::text, l.sum_p, h.amount_p
        FROM holds h JOIN (
            SELECT t.request_id, sum(e.amount_p) AS sum_p
            FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id
            WHERE t.kind = 'charge' AND e.amount_p > 0 GROUP BY t.request_id
        ) l ON l.request_id = h.request_id
        WHERE l.sum_p > h.amount_p
        """,
    ),
    (
        "rejected_usage",
        "no usage row is rejected",
        """
        SELECT request_id::text, 1::numeric, 0 FROM usage_staging WHERE rejected IS NOT NULL
        """,
    ),
)
_GPU_TIME = (
    (
        "unpaid_gpu_time",
        "a GPU interval is paid or waived to the millisecond (I9)",
        life_rules.unpaid("gpu_intervals", life_rules.AT_ONE_RATE),
    ),
    (
        "unproven_gpu_time",
        "no GPU time is billed beyond its proof (I9)",
        life_rules.unproven("gpu_intervals"),
    ),
    (
        "wrong_gpu_charges",
        "a GPU interval's charge is what the ledger moved (I9)",
        life_rules.wrong_charges("gpu_intervals", "gpu_time"),
    ),
    (
        "excessive_gpu_charges",
        "a GPU charge is at most rate x time (I9)",
        life_rules.excessive_charges("gpu_time", life_rules.OF_ONE_RATE),
    ),
    (
        "twice_paid_gpu_time",
        "no two GPU charges pay for the same time (I9)",
        life_rules.charged_twice("gpu_time"),
    ),
)
RULES = _LEDGER + _CORRECTIONS + _USAGE + _GPU_TIME
