"""Makes invoices final, one month of everybody after another, until it is killed.

python -m support.storm_months postgresql://...

A piece of a storm. Months end when it says so: each round is a month later than the last, so that
whatever is charged meanwhile is late on the next one.
"""

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from sqlalchemy import NullPool, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from support.invoicing import run

from controlplane.billing.invoices import months
from controlplane.billing.invoices.models import Invoice
from controlplane.db import session_factory

MONTH_SECONDS = 1.0


def close_month(sessions: sessionmaker[Session]) -> None:
    """Close the newest month that an invoice has begun."""
    with sessions.begin() as session:
        newest = session.scalar(select(func.max(Invoice.month)))
    newest = newest or months.month_of(datetime.now(UTC))
    run(sessions, months.end(newest) + timedelta(days=2))


def main(database_url: str) -> None:
    """Close months until killed."""
    url = database_url.replace("postgresql:", "postgresql+psycopg:")
    sessions = session_factory(create_engine(url, poolclass=NullPool))
    while True:
        with suppress(DBAPIError):  # PostgreSQL is down
            close_month(sessions)
        time.sleep(MONTH_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
