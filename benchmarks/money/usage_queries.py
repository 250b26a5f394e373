"""How long questions about usage take: `python -m benchmarks.money.usage_queries`.

What is asked is what the REST API runs for a tenant's key, from the checked question to the bytes
of the answer, confined to the tenant's own rows. Every other question is about the largest tenant,
which has half of the events. Needs `tests` on PYTHONPATH for starting the server.
"""

import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.orm import Session

from benchmarks.money.results import Figure, as_markdown, as_table, quantile
from benchmarks.money.usage_events import DAYS, fill
from benchmarks.money.world import World, build, server
from controlplane import row_security
from controlplane.api.contract.callers import Member
from controlplane.api.usage.organization import get_costs, get_usage
from controlplane.api.usage.organization_queries import CostsQuery, UsageGroup, UsageQuery
from controlplane.supervisor.postgres import Postgres
from controlplane.usage import events

AIM_MS = 150
_ASKED = 100
_NOBODY = uuid.UUID(int=0)
_GROUPS: tuple[list[UsageGroup], ...] = ([], ["project_id"], ["model"], ["api_key_id"])

Ask = Callable[[Session, Member], object]


def figures(world: World, count: int, since: datetime) -> Iterator[Figure]:
    """Ask each kind of question of a world that was filled with `count` events."""
    for name, ask in _questions(since):
        waits = sorted(_waits(world, ask))
        yield Figure(
            f"{name} of {count:,} events: p50 {quantile(waits, 0.5) * 1000:,.0f} ms, p95",
            quantile(waits, 0.95) * 1000,
            "ms",
            aim=AIM_MS,
            less_is_better=True,
        )


def filled(postgres: Postgres, count: int) -> tuple[World, datetime]:
    """Make a database of 1,000 tenants with so many events; return it and their first moment."""
    now = datetime.now(UTC)
    since = datetime(now.year, now.month, now.day, tzinfo=UTC) - timedelta(days=DAYS)
    world = build(postgres, "usage", customers=1_000)
    fill(world, count, since)
    return world, since


def _questions(since: datetime) -> Iterator[tuple[str, Ask]]:
    middle = since + timedelta(days=DAYS // 2)
    for width, first, limit in (("1m", middle, 1_440), ("1h", middle, 168), ("1d", since, DAYS)):
        for groups in _GROUPS:
            asked = UsageQuery(
                start_time=int(first.timestamp()),
                end_time=int(time.time()),
                bucket_width=width,
                limit=limit,
                group_by=groups,
            )
            by = f" by {groups[0].removesuffix('_id')}" if groups else ""
            yield f"{limit:,} buckets of {width}{by}", _usage(asked)
    costs = CostsQuery(start_time=int(since.timestamp()), limit=DAYS, group_by=["line_item"])
    yield (
        f"costs of {DAYS} days by line item",
        lambda session, tenant: get_costs(session, tenant, costs),
    )
    yield (
        "a page of 100 requests",
        lambda session, tenant: events.listing(
            session, tenant_id=tenant.tenant_id, after=None, limit=100
        ),
    )


def _usage(asked: UsageQuery) -> Ask:
    return lambda session, tenant: get_usage(session, tenant, asked)


def _waits(world: World, ask: Ask) -> Iterator[float]:
    chance, sessions = random.Random(1), world.sessions()
    for number in range(_ASKED):
        customer = world.customers[0] if number % 2 else chance.choice(world.customers)
        tenant = Member("benchmark", "owner", customer.tenant_id, _NOBODY, None)
        began = time.perf_counter()
        with sessions.begin() as session:
            row_security.confine(session, tenant_id=tenant.tenant_id)
            ask(session, tenant)
        yield time.perf_counter() - began
    sessions.kw["bind"].dispose()


def main(
    count: Annotated[int, typer.Option(min=100_000, help="Events.")] = 10_000_000,
) -> None:
    """Measure questions about usage on many events: ten million take 10 minutes and 8 GB."""
    folder = Path(tempfile.mkdtemp(prefix="usage-bench-"))
    try:
        with server(folder) as postgres:
            world, since = filled(postgres, count)
            found = list(figures(world, count, since))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Console().print(as_table(found))
    typer.echo(as_markdown(found))


if __name__ == "__main__":
    typer.run(main)
