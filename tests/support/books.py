"""The books, checked by SQL that shares nothing with the product's own check."""

import psycopg

ALL_ENTRIES = "SELECT coalesce(sum(amount_p), 0) FROM ledger_entries"
UNBALANCED = """
    SELECT count(*) FROM (SELECT transaction_id FROM ledger_entries
                          GROUP BY 1 HAVING sum(amount_p) <> 0) AS t
"""
BALANCE_IS_NOT_ENTRIES = """
    SELECT count(*) FROM accounts AS a
    WHERE balance_p <> (SELECT coalesce(sum(amount_p), 0) FROM ledger_entries
                        WHERE account_id = a.id)
"""
# Every tenant's balance from first principles: what came in or back less tokens x price.
BALANCE_IS_NOT_INCOME_LESS_USAGE = """
    SELECT count(*) FROM accounts AS a
    WHERE kind = 'tenant' AND balance_p <>
      (SELECT coalesce(sum(e.amount_p), 0) FROM ledger_entries AS e
         JOIN ledger_transactions AS t ON t.id = e.transaction_id
        WHERE e.account_id = a.id AND t.kind NOT IN ('charge', 'gpu_time'))
      - (SELECT coalesce(sum(u.hit_tokens * p.hit_rate_p + u.miss_tokens * p.miss_rate_p
                             + u.output_tokens * p.output_rate_p
                             + least(u.hit_tokens + u.miss_tokens + u.output_tokens, 1)
                               * p.request_rate_p), 0)
         FROM usage_events AS u
         JOIN price_rates AS p ON p.version_id = u.price_version_id AND p.band = u.band
        WHERE u.tenant_id = a.tenant_id)
      - (SELECT coalesce(sum(floor(g.rate_p_per_hour::numeric * g.billed_ms / 3600000)
                             - g.waived_p), 0)
         FROM gpu_intervals AS g WHERE g.tenant_id = a.tenant_id)
"""
# What runs holds the money of its next minutes.
HELD = """
    SELECT (SELECT coalesce(sum(held_p), 0) FROM accounts)
        - (SELECT coalesce(sum(held_p), 0) FROM gpu_intervals WHERE ended_at IS NULL)
        - (SELECT coalesce(sum(held_p), 0) FROM volume_intervals WHERE ended_at IS NULL)
"""
OPEN_HOLDS = "SELECT count(*) FROM holds WHERE state = 'open'"
STAGED = "SELECT count(*) FROM usage_staging"
OVERSPENT = (
    "SELECT count(*) FROM accounts WHERE kind = 'tenant' AND balance_p + credit_limit_p < held_p"
)

RULES = {
    "all entries sum to zero": ALL_ENTRIES,
    "every transaction sums to zero": UNBALANCED,
    "a balance is the sum of its entries": BALANCE_IS_NOT_ENTRIES,
    "a balance is what came in less tokens x price": BALANCE_IS_NOT_INCOME_LESS_USAGE,
    "nothing is held for requests or for what has ended": HELD,
    "no hold is open": OPEN_HOLDS,
    "nothing waits to be settled": STAGED,
    "nobody is overspent": OVERSPENT,
}


def violations(database_url: str) -> list[str]:
    """Return the rules that do not hold in an idle system; empty when the books are exact."""
    with psycopg.connect(database_url) as connection:
        found = []
        for rule, query in RULES.items():
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
            if row[0] != 0:
                found.append(f"{rule}: {row[0]}")
        return found
