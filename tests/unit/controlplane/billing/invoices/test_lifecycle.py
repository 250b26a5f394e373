"""From the ledger to a final invoice: what is on it, when, and that nothing changes it."""

from datetime import UTC, datetime, timedelta

from support.invoicing import final, line_sum_p, run
from support.shop import HIT_P, MISS_P, MODEL, OUTPUT_P, Shop

from controlplane.billing.invoices import documents, months
from controlplane.billing.invoices.models import P_PER_CENT
from controlplane.usage.records import TokenUsage

USD = 10**12


def test_a_month_becomes_an_invoice_after_its_grace(shop: Shop) -> None:
    customer = shop.customer(10 * USD)
    usage = TokenUsage(hit_tokens=5, miss_tokens=50, output_tokens=9, reasoning_tokens=0)
    shop.stage(shop.trace(customer, shop.hold(customer), usage))
    shop.settle()
    now = datetime.now(UTC)
    end = months.end(months.month_of(now))
    assert run(shop.sessions, now) == 0
    assert run(shop.sessions, end + timedelta(hours=23)) == 0
    assert run(shop.sessions, end + timedelta(hours=24)) == 1
    assert run(shop.sessions, end + timedelta(hours=25)) == 0
    (document,) = final(shop.sessions, customer.tenant_id)
    invoice, lines = document.invoice, document.lines
    sold = [line for line in lines if line.section == "sale"]
    assert [(line.meter, line.quantity, line.rate_p) for line in sold] == [
        ("miss", 50, MISS_P),
        ("hit", 5, HIT_P),
        ("output", 9, OUTPUT_P),
    ]
    assert {(line.model, line.path, line.api_key) for line in sold} == {
        (MODEL, "serverless", "key")
    }
    charged_p = 5 * HIT_P + 50 * MISS_P + 9 * OUTPUT_P
    assert invoice.charges_p == line_sum_p(document, "sale") == charged_p
    assert invoice.closing_p == 10 * USD - charged_p
    assert (invoice.total_cents, invoice.carried_out_p) == divmod(charged_p, P_PER_CENT)
    assert invoice.due_cents == 0
    assert invoice.hash == documents.digest(document)
