"""The rules of the books that speak of invoices; revision 0011 writes them."""

RULES = (
    (
        "wrong_invoice_sums",
        "the lines of a final invoice sum to its charges, and to its total and what it carries"
        " (I8)",
        """
        SELECT i.number, l.sale_p + l.billed_p, i.charges_p + i.total_cents::numeric * 10000000000
               + i.carried_out_p
        FROM invoices i JOIN LATERAL (
            SELECT coalesce(sum(amount_p) FILTER (WHERE section = 'sale'), 0) AS sale_p,
                   coalesce(sum(amount_p) FILTER (WHERE section <> 'funds'), 0) AS billed_p,
                   coalesce(sum(amount_p) FILTER (WHERE section = 'funds'), 0) AS funds_p
            FROM invoice_lines WHERE invoice_id = i.id
        ) l ON true
        WHERE i.state = 'final' AND (l.sale_p, l.funds_p, l.billed_p) IS DISTINCT FROM
            (i.charges_p, -i.received_p, i.total_cents::numeric * 10000000000 + i.carried_out_p)""",
    ),
    (
        "broken_invoice_chains",
        "an invoice begins where the tenant's invoice before ended, to the picodollar (I8)",
        """
        SELECT number, opening_p + carried_in_p, closed_p + carried_p FROM (
            SELECT number, opening_p, carried_in_p,
                   coalesce(lag(closing_p) OVER tenant, 0) AS closed_p,
                   coalesce(lag(carried_out_p) OVER tenant, 0) AS carried_p
            FROM invoices WHERE state = 'final'
            WINDOW tenant AS (PARTITION BY tenant_id ORDER BY month)
        ) AS chain WHERE (opening_p, carried_in_p) IS DISTINCT FROM (closed_p, carried_p)""",
    ),
    (
        "gaps_in_invoice_numbers",
        "the numbers of a series and year run from 1 without a gap",
        """
        SELECT c.series || '-' || c.year, c.last, count(i.id)
        FROM invoice_counters c LEFT JOIN invoices i ON i.series = c.series AND i.year = c.year
            AND i.serial BETWEEN 1 AND c.last
        GROUP BY c.series, c.year, c.last HAVING count(i.id) <> c.last""",
    ),
    (
        "unseen_entries",
        "the balance that an invoice saw is the sum of the entries that it saw",
        """
        SELECT i.number, i.until_balance_p, (
            SELECT coalesce(sum(e.amount_p), 0) FROM ledger_entries e
            WHERE e.account_id = a.id AND e.id <= i.until_entry_id
        )
        FROM invoices i JOIN accounts a ON a.tenant_id = i.tenant_id
        WHERE i.state = 'final' AND i.until_balance_p <> (
            SELECT coalesce(sum(e.amount_p), 0) FROM ledger_entries e
            WHERE e.account_id = a.id AND e.id <= i.until_entry_id
        )""",
    ),
    (
        "overpaid_invoices",
        "no more than its amount due is paid of an invoice; the rest is the tenant's balance",
        """
        SELECT i.number, sum(p.amount_cents), i.due_cents
        FROM invoices i JOIN invoice_payments p ON p.invoice_id = i.id
        GROUP BY i.id HAVING sum(p.amount_cents) > i.due_cents""",
    ),
)
