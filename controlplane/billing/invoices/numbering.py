"""Numbers of invoices: FP-2026-000001, without a gap. Called by `lifecycle`.

The counter's row is locked until the transaction ends, so invoices become final one at a time, and
a number whose transaction fails is the next one's.
"""

from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.billing.invoices.models import InvoiceCounter


@dataclass(frozen=True, slots=True)
class Number:
    """A number of one series and year."""

    series: str
    year: int
    serial: int

    def __str__(self) -> str:
        return f"{self.series}-{self.year}-{self.serial:06d}"


def take(session: Session, series: str, year: int) -> Number:
    """Take the next number. Call it last: everybody else waits for this transaction's end."""
    serial = session.execute(
        insert(InvoiceCounter)
        .values(series=series, year=year, last=1)
        .on_conflict_do_update(
            index_elements=["series", "year"], set_={"last": InvoiceCounter.last + 1}
        )
        .returning(InvoiceCounter.last)
    ).scalar_one()
    return Number(series, year, serial)
