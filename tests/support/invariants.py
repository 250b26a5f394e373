"""What must be true of money after any storm, by SQL and files that the product does not read.

Each rule is one query that counts what breaks it. The engines' word is taken from their own files,
not from what the control plane has read of them.
"""

import hashlib
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg

# At every commit, so at any moment that anybody looks.
ALWAYS = {
    "I5: balance and credit cover what is held": """
        SELECT count(*) FROM accounts
        WHERE kind = 'tenant' AND balance_p + credit_limit_p - held_p < 0""",
    "a budget is never exceeded": """
        SELECT count(*) FROM budgets WHERE spent_p + held_p > limit_p""",
    "I1: the ledger sums to zero": "SELECT coalesce(sum(amount_p), 0) FROM ledger_entries",
}
IDLE = {
    "I1: each transaction sums to zero": """
        SELECT count(*) FROM (SELECT transaction_id FROM ledger_entries
                              GROUP BY 1 HAVING sum(amount_p) <> 0) AS t""",
    "I2: a balance is the sum of its entries": """
        SELECT count(*) FROM accounts AS a
        WHERE (balance_p, granted_p) <>
              (SELECT coalesce(sum(amount_p), 0), coalesce(sum(granted_p), 0)
               FROM ledger_entries WHERE account_id = a.id)""",
    "I4: nothing is held": "SELECT coalesce(sum(held_p), 0) FROM accounts",
    "I4: no budget holds anything": "SELECT coalesce(sum(held_p), 0) FROM budgets",
    "I4: no hold is open": "SELECT count(*) FROM holds WHERE state = 'open'",
    "nothing waits, nothing was set aside": "SELECT count(*) FROM usage_staging",
    "I5: the database itself would refuse an overspent account": """
        SELECT 1 - count(*) FROM pg_constraint
        WHERE conrelid = 'accounts'::regclass AND conname LIKE '%%not_overspent'
          AND convalidated AND conenforced""",
    "I7: a charge is tokens times the pinned rates": """
        SELECT count(*) FROM usage_events AS u
        JOIN price_rates AS p ON (p.version_id, p.band) = (u.price_version_id, u.band)
        WHERE u.charge_p <> u.hit_tokens * p.hit_rate_p + u.miss_tokens * p.miss_rate_p
            + u.output_tokens * p.output_rate_p
            + least(u.hit_tokens + u.miss_tokens + u.output_tokens, 1) * p.request_rate_p""",
    "I7: the customer's entries are the charge": """
        SELECT count(*) FROM usage_events AS u
        WHERE u.charge_p <> (SELECT coalesce(-sum(e.amount_p), 0) FROM ledger_transactions AS t
            JOIN ledger_entries AS e ON e.transaction_id = t.id
            JOIN accounts AS a ON a.id = e.account_id AND a.tenant_id = u.tenant_id
            WHERE t.request_id = u.request_id)""",
    "I7: reasoning is part of the output": """
        SELECT count(*) FROM usage_events WHERE reasoning_tokens > output_tokens""",
    "I3: each request is charged once, and none without usage": """
        SELECT count(*) FROM (SELECT request_id FROM ledger_transactions AS t
            WHERE kind = 'charge' AND NOT EXISTS
              (SELECT FROM usage_events AS u WHERE u.request_id = t.request_id)
            UNION ALL SELECT request_id FROM ledger_transactions WHERE kind = 'charge'
            GROUP BY 1 HAVING count(*) > 1) AS wrong""",
    "I3: the ledger's tokens are the bills', class by class": """
        SELECT count(*) FROM (
            SELECT u.request_id, c.token_class, c.tokens
            FROM usage_events AS u CROSS JOIN LATERAL (VALUES ('hit', u.hit_tokens),
                ('miss', u.miss_tokens), ('output', u.output_tokens)) AS c(token_class, tokens)
            JOIN price_rates AS p ON (p.version_id, p.band) = (u.price_version_id, u.band)
            WHERE c.tokens > 0 AND CASE c.token_class WHEN 'hit' THEN p.hit_rate_p
                WHEN 'miss' THEN p.miss_rate_p ELSE p.output_rate_p END > 0
            EXCEPT SELECT t.request_id, e.token_class, e.tokens
            FROM ledger_transactions AS t JOIN ledger_entries AS e ON e.transaction_id = t.id
        ) AS missing""",
    "a budget of a key is what its requests cost": """
        SELECT count(*) FROM budgets AS b WHERE scope = 'key' AND spent_p <>
            (SELECT coalesce(sum(charge_p), 0) FROM usage_events
             WHERE api_key_id = b.api_key_id)""",
    "I10: every bill is of its key's tenant": """
        SELECT count(*) FROM usage_events AS u LEFT JOIN api_keys AS k
            ON (k.id, k.tenant_id) = (u.api_key_id, u.tenant_id) WHERE k.id IS NULL""",
    "I10: every charge is of its bill's tenant": """
        SELECT count(*) FROM ledger_transactions AS t JOIN usage_events AS u USING (request_id)
        WHERE t.tenant_id <> u.tenant_id""",
    "I8: the lines of all final invoices are the entries that they saw": """
        SELECT count(*) FROM accounts AS a JOIN (
            SELECT tenant_id, max(until_entry_id) AS seen FROM invoices
            WHERE state = 'final' GROUP BY 1) AS i USING (tenant_id)
        WHERE a.kind = 'tenant' AND (
            SELECT coalesce(sum(amount_p), 0) FROM ledger_entries
            WHERE account_id = a.id AND id <= i.seen) <> (
            SELECT coalesce(-sum(l.amount_p), 0) FROM invoice_lines AS l
            JOIN invoices AS f ON f.id = l.invoice_id
            WHERE f.tenant_id = a.tenant_id AND f.state = 'final'
              AND l.section IN ('sale', 'funds'))""",
    "I8: an invoice's lines are its total and less than a cent that is carried": """
        SELECT count(*) FROM invoices AS i WHERE state = 'final' AND (
            abs(carried_out_p) >= 10000000000 OR (
            SELECT coalesce(sum(amount_p), 0) FROM invoice_lines
            WHERE invoice_id = i.id AND section <> 'funds')
            <> total_cents::numeric * 10000000000 + carried_out_p)""",
    "I8: what one invoice carries out the next one carries in": """
        SELECT count(*) FROM (
            SELECT carried_in_p, lag(carried_out_p, 1, 0::numeric)
                OVER (PARTITION BY tenant_id ORDER BY month) AS left_p
            FROM invoices WHERE state = 'final') AS chain
        WHERE carried_in_p <> left_p""",
    "invoices are numbered without a gap": """
        SELECT count(*) FROM (
            SELECT FROM invoices WHERE state = 'final' GROUP BY series, year
            HAVING max(serial) <> count(*) OR min(serial) <> 1) AS gaps""",
    "no invoice was refused": "SELECT count(*) FROM invoices WHERE refused IS NOT NULL",
}
# How a request ended whose client was sent all of it: nothing of that is waived.
WHOLE = ("stop", "length")


def broken(database_url: str, rules: dict[str, str]) -> list[str]:
    """Return the rules that do not hold, with how far they are off."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        counts = {
            rule: connection.execute(query.replace("%%", "%")).fetchone()  # type: ignore[call-overload]
            for rule, query in rules.items()
        }
    return [f"{rule}: {row[0]}" for rule, row in counts.items() if row[0] != 0]


def final_invoices(database_url: str, besides: Collection[str] = ()) -> dict[str, str]:
    """A fingerprint of every final invoice with its lines and its hash, by number."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        return dict(
            connection.execute(
                "SELECT number, md5(i::text || (SELECT string_agg(l::text, '' ORDER BY position)"
                " FROM invoice_lines AS l WHERE invoice_id = i.id)) FROM invoices AS i"
                " WHERE state = 'final' AND number <> ALL(%s)",
                (list(besides),),
            )
        )


def ledger_hash(database_url: str) -> str:
    """A fingerprint of every transaction, entry, balance and bill."""
    digest = hashlib.sha256()
    with psycopg.connect(database_url) as connection:
        for table, order in (
            ("ledger_transactions", "id"),
            ("ledger_entries", "id"),
            ("accounts", "id"),
            ("budgets", "id"),
            ("usage_events", "request_id"),
        ):
            query = f"SELECT {table}::text FROM {table} ORDER BY {order}"
            for (row,) in connection.execute(query):  # type: ignore[call-overload]
                digest.update(row.encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Made:
    """What one engine wrote down of one attempt. Not `is_exact`: it was killed meanwhile."""

    started_us: int
    hit_tokens: int
    miss_tokens: int
    output_tokens: int
    is_exact: bool


def witnessed(journals: Iterable[Path]) -> dict[uuid.UUID, list[Made]]:
    """Return every attempt that engines wrote down, by request, oldest first; they must be dead."""
    found: dict[uuid.UUID, list[Made]] = defaultdict(list)
    for journal in journals:
        with sqlite3.connect(journal) as connection:
            rows = connection.execute(
                "SELECT request_id, started_us, prompt_cache_hit_tokens, prompt_cache_miss_tokens,"
                " completion_tokens, ended_us IS NOT NULL AND finish_reason <> 'interrupted'"
                " FROM attempts"
            ).fetchall()
        connection.close()
        for request_id, *made, is_exact in rows:
            found[uuid.UUID(request_id)].append(Made(*made, bool(is_exact)))
    return {request: sorted(it, key=lambda made: made.started_us) for request, it in found.items()}


def unwitnessed(database_url: str, journals: Iterable[Path]) -> list[str]:
    """I3: return what bills say otherwise than engines; what they leave out must be waived.

    A request whose client got all of it is billed all that was made. Of others a bill may leave out
    what nobody was sent, and is never more than what was made, as far as that is known.
    """
    seen = witnessed(journals)
    wrong = []
    with psycopg.connect(database_url) as connection:
        bills = connection.execute(
            "SELECT request_id, hit_tokens, miss_tokens, output_tokens, finish_reason"
            " FROM usage_events"
        ).fetchall()
    for request_id, hit, miss, output, reason in bills:
        attempts = seen.pop(request_id, [])
        if problem := _differs((hit, miss, output), reason, attempts):
            wrong.append(f"{request_id} {reason}: {problem}: {hit, miss, output} of {attempts}")
    for request_id, attempts in seen.items():
        if any(made.output_tokens for made in attempts):
            wrong.append(f"{request_id}: nobody was billed for {attempts}")
    return wrong


def _differs(bill: tuple[int, int, int], reason: str, attempts: list[Made]) -> str | None:
    hit, miss, output = bill
    if not attempts:
        return "no engine knows it" if any(bill) else None
    prompt = max(it.hit_tokens + it.miss_tokens for it in attempts)
    most = max(it.output_tokens for it in attempts)
    if reason in WHOLE:
        if (hit + miss, output) != (prompt, most):
            return "not all that was made"
        (first, *others) = attempts
        if not others and first.is_exact and hit != first.hit_tokens:
            return "another cache"
    elif all(it.is_exact for it in attempts) and (hit + miss > prompt or output > most):
        return "more than was made"
    return None
