"""How long questions about usage take: `python -m benchmarks.money.usage_queries`.

Events are written by SQL, half of them one tenant's, over a month; roll-ups come from the
database's own deltas, as in service. The last of them are left as deltas, as between two ticks.
Needs `tests` on PYTHONPATH for starting the server.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.money.results import Figure, as_markdown, as_table, quantile
from benchmarks.money.world import Customer, World, build, server
from controlplane.billing.costs import costs
from controlplane.usage import events, rollups
from controlplane.usage.rollups import HOUR, MINUTE

AIM_MS = 150
DAYS = 31
_BATCH = 250_000
_FRESH = 10_000
_ASKED = 100
_WRITE = text("""
    INSERT INTO usage_events (request_id, tenant_id, api_key_id, model, path, thinking, streamed,
        hit_tokens, miss_tokens, output_tokens, reasoning_tokens, finish_reason, started_at,
        price_version_id, band, charge_p)
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000'
            || lpad(to_hex(number), 12, '0'))::uuid,
        tenant_ids[owner], api_key_ids[owner], :model, 'serverless', number % 3 = 0, true,
        100, 200, 50, 10, 'stop', moment, :price_version_id, :band, 1000
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS number
    CROSS JOIN (SELECT CAST(:tenant_ids AS uuid[]) AS tenant_ids,
                       CAST(:api_key_ids AS uuid[]) AS api_key_ids) AS owners
    CROSS JOIN LATERAL (
        SELECT CASE WHEN number % 2 = 0 THEN 1 ELSE 1 + number % :customers END AS owner,
               CAST(:since AS timestamptz) + number * CAST(:step AS interval) AS moment
    ) AS told
""")


def fill(world: World, count: int, since: datetime) -> None:
    """Write `count` events; all but the last batch are rolled up."""
    step = timedelta(days=DAYS) / count
    with world.sessions()() as session:
        last_batch = count - _FRESH
        for first in [*range(0, last_batch, _BATCH), last_batch]:
            while rollups.roll_up(session, 100_000):
                session.commit()
            session.execute(
                _WRITE,
                {
                    "first": first,
                    "last": min(first + _BATCH, last_batch if first < last_batch else count) - 1,
                    "tenant_ids": [it.tenant_id for it in world.customers],
                    "api_key_ids": [it.api_key_id for it in world.customers],
                    "customers": len(world.customers),
                    "model": world.price.model,
                    "price_version_id": world.price.version_id,
                    "band": world.price.band,
                    "since": since,
                    "step": step,
                },
            )
            session.commit()
        session.connection().execute(text("COMMIT"))
        session.connection().execute(text("ANALYZE"))
        session.commit()


def measured(
    sessions: sessionmaker[Session], ask: Callable[[Session, Customer], object], world: World
) -> float:
    """Return the 95th percentile in ms; every other question is about the largest tenant."""
    chance, waits = random.Random(1), []
    for number in range(_ASKED):
        customer = world.customers[0] if number % 2 else chance.choice(world.customers)
        began = time.perf_counter()
        with sessions.begin() as session:
            ask(session, customer)
        waits.append(time.perf_counter() - began)
    return quantile(waits, 0.95) * 1000


def figures(world: World, count: int, since: datetime) -> Iterator[Figure]:
    """Ask each kind of question."""
    by = ["api_key_id", "model", "band", "thinking"]
    middle, month = since + timedelta(days=DAYS // 2), since + timedelta(days=DAYS)

    def usage(begin: datetime, end: datetime, width: timedelta) -> Callable[..., object]:
        return lambda session, customer: rollups.sums(
            session,
            tenant_id=customer.tenant_id,
            since=begin,
            until=end,
            width=width,
            group_by=by,
        )

    asked: dict[str, Callable[..., object]] = {
        "1,440 buckets of 1m": usage(middle, middle + 24 * HOUR, MINUTE),
        "168 buckets of 1h": usage(middle, middle + 168 * HOUR, HOUR),
        "31 buckets of 1d": usage(since, month, 24 * HOUR),
        "costs of 31 days": lambda session, customer: costs(
            session, tenant_id=customer.tenant_id, since=since, until=month
        ),
        "a page of 100 requests": lambda session, customer: events.listing(
            session, tenant_id=customer.tenant_id, after=None, limit=100
        ),
    }
    for name, ask in asked.items():
        yield Figure(
            f"{name}, p95 on {count:,} events",
            measured(world.sessions(), ask, world),
            "ms",
            aim=AIM_MS,
            less_is_better=True,
        )


def main(
    count: Annotated[int, typer.Option(min=100_000, help="Events.")] = 10_000_000,
) -> None:
    """Measure questions about usage on many events."""
    folder = Path(tempfile.mkdtemp(prefix="usage-bench-"))
    now = datetime.now(UTC)
    since = datetime(now.year, now.month, now.day, tzinfo=UTC) - timedelta(days=DAYS)
    try:
        with server(folder) as postgres:
            world = build(postgres, "usage", customers=1_000)
            fill(world, count, since)
            found = list(figures(world, count, since))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Console().print(as_table(found))
    typer.echo(as_markdown(found))


if __name__ == "__main__":
    typer.run(main)
