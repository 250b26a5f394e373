"""The lines of an invoice as CSV, for other programs. Called by the REST API."""

import csv
import io

from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.models import InvoiceLine
from controlplane.money import p_to_usd

_WORDS = ("project", "api_key", "model", "path", "band", "meter", "resource", "detail", "unit")
COLUMNS = (
    "invoice",
    "position",
    "section",
    "kind",
    "month",
    "late",
    *_WORDS,
    "quantity",
    "rate_p",
    "amount_p",
    "amount_usd",
)


def render(document: Document) -> bytes:
    """Return a row a line; all `amount_p` but those of `funds` sum to the total and the carried."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for line in document.lines:
        writer.writerow([document.invoice.number or "", *_cells(line)])
    return out.getvalue().encode()


def _cells(line: InvoiceLine) -> list[object]:
    return [
        line.position,
        line.section,
        line.kind,
        line.month.isoformat(),
        "true" if line.late else "false",
        *(_word(getattr(line, name)) for name in _WORDS),
        "" if line.quantity is None else line.quantity,
        "" if line.rate_p is None else line.rate_p,
        line.amount_p,
        p_to_usd(line.amount_p),
    ]


def _word(text: str | None) -> str:
    """Return a text that no spreadsheet takes for a formula: tenants choose names."""
    if text and text[0] in "=+-@\t\r":
        return f"'{text}"
    return text or ""
