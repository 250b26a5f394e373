"""What an invoice says, in words and columns; HTML and PDF only lay it out."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import Invoice, InvoiceLine
from controlplane.money import P_PER_USD, p_to_usd, rate_p_to_usd_per_million
from controlplane.pricing.rating import MS_PER_HOUR

_HEADINGS = {
    "carried": "Carried from the invoice before",
    "sale": "Used and taken back",
    "granted": "Paid by granted credit",
    "funds": "Money received",
}
_METERS = {
    "hit": "input tokens, cache hit",
    "miss": "input tokens, cache miss",
    "output": "output tokens",
    "request": "requests",
    "on_demand": "GPU time, on demand",
    "spot": "GPU time, spot",
    "carried": "fraction of a cent",
    "granted": "granted credit",
}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A line: what, how much of it, at which rate, and the exact sum in USD."""

    what: str
    whose: str
    quantity: str
    rate: str
    amount: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """An invoice to lay out. `facts` and `totals` are pairs of a name and a value."""

    title: str
    seller: list[str]
    customer: list[str]
    facts: list[tuple[str, str]]
    sections: list[tuple[str, list[SheetRow]]]
    totals: list[tuple[str, str]]
    notes: list[str]


def sheet(document: Document) -> Sheet:
    """Return what to print of an invoice that is final, or of a preview."""
    invoice, lines = document.invoice, document.lines
    return Sheet(
        title=_title(invoice),
        seller=_party(invoice.seller or {}),
        customer=_party(invoice.customer or {}),
        facts=_facts(invoice),
        sections=[
            (heading, rows)
            for section, heading in _HEADINGS.items()
            if (rows := [_row(line) for line in lines if line.section == section])
        ],
        totals=_totals(invoice),
        notes=_notes(invoice),
    )


def cents_to_usd(cents: int) -> str:
    """Return dollars and cents: -5 -> "-0.05"."""
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def _title(invoice: Invoice) -> str:
    if invoice.number is None:
        return f"Preview of {invoice.month:%Y-%m}"
    return f"{'Credit note' if (invoice.total_cents or 0) < 0 else 'Invoice'} {invoice.number}"


def _party(party: dict[str, str]) -> list[str]:
    tax_id = party.get("tax_id", "")
    told = [party.get("name", ""), *party.get("address", "").splitlines()]
    return [*(line for line in told if line), *([f"Tax ID {tax_id}"] if tax_id else [])]


def _facts(invoice: Invoice) -> list[tuple[str, str]]:
    facts = [("Month (UTC)", f"{invoice.month:%Y-%m}")]
    if invoice.issued_at and invoice.due_at:
        facts.append(("Issued", _day(invoice.issued_at)))
        if invoice.due_cents:
            facts.append(("Due", _day(invoice.due_at)))
    facts.append(("Terms", invoice.terms or ""))
    facts.append(("Currency", "USD"))
    return facts


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _row(line: InvoiceLine) -> SheetRow:
    kind = _METERS.get(line.meter, line.meter.replace("_", " "))
    what = [line.model, line.path, line.band, line.resource, kind, line.detail]
    if line.late:
        what.append(f"late, of {line.month:%Y-%m}")
    whose = [line.project, line.api_key]
    quantity, rate = _measure(line)
    return SheetRow(
        what=" · ".join(part for part in what if part),
        whose=" / ".join(part for part in whose if part),
        quantity=quantity,
        rate=rate,
        amount=p_to_usd(line.amount_p),
    )


def _measure(line: InvoiceLine) -> tuple[str, str]:
    if line.quantity is None or line.rate_p is None:
        return "", ""
    if line.unit == "ms":
        hours, ms = divmod(line.quantity, MS_PER_HOUR)
        minutes, ms = divmod(ms, 60_000)
        told = f"{hours}:{minutes:02d}:{ms // 1000:02d}.{ms % 1000:03d} h"
        return told, f"{p_to_usd(line.rate_p)} / h"
    if line.unit == "tokens":
        return f"{line.quantity:,}", f"{rate_p_to_usd_per_million(line.rate_p)} / million"
    return f"{line.quantity:,}", p_to_usd(line.rate_p)


def _totals(invoice: Invoice) -> list[tuple[str, str]]:
    assert invoice.total_cents is not None
    assert invoice.carried_out_p is not None
    assert invoice.tax_cents is not None
    exact_p = invoice.total_cents * (P_PER_USD // 100) + invoice.carried_out_p
    told = [("Exact sum", p_to_usd(exact_p))]
    if invoice.carried_out_p:
        told.append(("Carried to the next invoice", p_to_usd(invoice.carried_out_p)))
    told.append(("Total", cents_to_usd(invoice.total_cents)))
    percent = f"{(invoice.tax_basis_points or 0) / 100:g} %"
    if invoice.terms == "prepaid":
        if invoice.tax_basis_points:
            told.append((f"{invoice.tax_name} {percent} included", cents_to_usd(invoice.tax_cents)))
        return [*told, ("Paid from the balance", cents_to_usd(invoice.total_cents))]
    if invoice.tax_basis_points:
        told.append((f"{invoice.tax_name} {percent}", cents_to_usd(invoice.tax_cents)))
    for name, cents in (
        ("Paid in before", invoice.credit_cents),
        ("Tax of credit notes", invoice.tax_credit_cents),
    ):
        if cents:
            told.append((name, cents_to_usd(-cents)))
    return [*told, ("Amount due", cents_to_usd(invoice.due_cents or 0))]


def _notes(invoice: Invoice) -> list[str]:
    assert invoice.opening_p is not None
    assert invoice.closing_p is not None
    notes = [invoice.tax_note] if invoice.tax_note else []
    notes.append(
        f"Account by this invoice: {p_to_usd(invoice.opening_p)} USD before,"
        f" {p_to_usd(invoice.closing_p)} USD after."
    )
    if invoice.hash is not None:
        notes.append(f"SHA-256 {invoice.hash.hex()}")
    return notes
