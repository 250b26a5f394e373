"""Invoices as files: what they say, in the same bytes every time, whatever tenants are called."""

import csv
import io
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime

from pypdf import PdfReader

from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.drafting import Line
from controlplane.billing.invoices.models import P_PER_CENT, Invoice, InvoiceLine
from controlplane.billing.invoices.rendering import page, paper, table

MONTH = date(2026, 10, 1)
TENANT = uuid.UUID(int=7)
TOKENS = Line(
    section="sale",
    kind="charge",
    month=MONTH,
    late=False,
    meter="miss",
    amount_p=1_234_567 * 140_000,
    project="default",
    api_key="laptop",
    model="deepseek-v4-flash",
    path="serverless",
    band="standard",
    quantity=1_234_567,
    unit="tokens",
    rate_p=140_000,
)
GPU = Line(
    section="sale",
    kind="gpu_time",
    month=date(2026, 9, 1),
    late=True,
    meter="spot",
    amount_p=19_360_000_000_000,
    path="dedicated",
    resource="h200-x4",
    detail="acme/bot",
    quantity=3_600_000,
    unit="ms",
    rate_p=19_360_000_000_000,
)


def document(*lines: Line, name: str = "Buy GmbH") -> Document:
    """A final, postpaid invoice of these lines, 19 % tax on top."""
    exact_p = sum(line.amount_p for line in lines)
    cents, carried_p = divmod(exact_p, P_PER_CENT)
    tax_cents = (cents * 19 + 50) // 100
    invoice = Invoice(
        id=uuid.UUID(int=1),
        tenant_id=TENANT,
        month=MONTH,
        state="final",
        number="FP-2026-000042",
        issued_at=datetime(2026, 11, 2, tzinfo=UTC),
        due_at=datetime(2026, 11, 16, tzinfo=UTC),
        seller={"name": "Sell & Sons", "address": "1 Rack Row\nData City", "tax_id": "XX1"},
        customer={"name": name, "address": "2 Buy Lane", "tax_id": ""},
        terms="postpaid",
        opening_p=0,
        closing_p=-exact_p,
        total_cents=cents,
        carried_out_p=carried_p,
        tax_name="VAT",
        tax_basis_points=1900,
        tax_cents=tax_cents,
        tax_credit_cents=0,
        credit_cents=0,
        due_cents=cents + tax_cents,
        hash=bytes(32),
    )
    rows = [
        InvoiceLine(invoice_id=invoice.id, tenant_id=TENANT, position=n, **fields(line))
        for n, line in enumerate(lines, start=1)
    ]
    return Document(invoice, rows)


def fields(line: Line) -> dict[str, object]:
    return {name: getattr(line, name) for name in Line.__slots__}


def pdf_text(document: Document) -> str:
    reader = PdfReader(io.BytesIO(paper.render(document)))
    return "\n".join(sheet.extract_text() for sheet in reader.pages)


GOLDEN = f"""\
Invoice FP-2026-000042 - page 1
Invoice FP-2026-000042
Sell & Sons
1 Rack Row
Data City
Tax ID XX1
Buy GmbH
2 Buy Lane
Month (UTC): 2026-10
Issued: 2026-11-02
Due: 2026-11-16
Terms: postpaid
Currency: USD
Used and taken back
What
Project / key
Quantity
Rate, USD
USD
deepseek-v4-flash · serverless · standard · input
tokens, cache miss
default / laptop
1,234,567
0.14 / million
0.17283938
dedicated · h200-x4 · GPU time, spot · acme/bot ·
late, of 2026-09
1:00:00.000 h
19.36 / h
19.36
Exact sum
19.53283938
Carried to the next invoice
0.00283938
Total
19.53
VAT 19 %
3.71
Amount due
23.24
Account by this invoice: 0.00 USD before, -19.53283938 USD after.
SHA-256 {"00" * 32}"""


def test_the_pdf_says_what_is_owed() -> None:
    text = pdf_text(document(TOKENS, GPU))
    assert [line.strip() for line in text.strip().splitlines()] == GOLDEN.splitlines()


def test_files_have_the_same_bytes_every_time() -> None:
    for render in (paper.render, page.render, table.render):
        assert render(document(TOKENS, GPU)) == render(document(TOKENS, GPU))


def test_a_long_invoice_has_pages_with_their_header_and_number() -> None:
    reader = PdfReader(io.BytesIO(paper.render(document(*[TOKENS] * 120))))
    assert len(reader.pages) > 2
    for number, sheet in enumerate(reader.pages[1:-1], start=2):
        assert "Quantity" in sheet.extract_text()
        assert f"FP-2026-000042 - page {number}" in sheet.extract_text()


def test_names_in_other_scripts_are_printed() -> None:
    text = pdf_text(document(TOKENS, name="深度求索 <b>Ωmega</b>"))
    assert "深度求索" in text
    assert "<b>" in text


def test_the_page_escapes_what_tenants_wrote_and_loads_nothing() -> None:
    html = page.render(document(replace(TOKENS, api_key="<script>x</script>"))).decode()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "http" not in html


def test_the_csv_sums_to_the_exact_sum_and_holds_no_formula() -> None:
    written = table.render(document(TOKENS, GPU, replace(TOKENS, api_key="=1+1"))).decode()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert sum(int(row["amount_p"]) for row in rows) == 2 * TOKENS.amount_p + GPU.amount_p
    assert [row["api_key"] for row in rows] == ["laptop", "", "'=1+1"]
    assert rows[1]["late"] == "true"
