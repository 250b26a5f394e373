"""Millions of events in minutes, for questions about usage. Called by `usage_queries`.

PostgreSQL makes them itself, like a month of traffic: half of them of one tenant with many keys,
the rest of a few large and many small ones. The database's own trigger tells their sums and the
production roll-up takes them, so roll-ups are those of service.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.money.world import World
from controlplane.pricing import book
from controlplane.tenants import keys, projects
from controlplane.usage import rollups

DAYS = 31
PROJECTS = 4
KEYS_OF_A_PROJECT = 5
MODELS = ("deepseek-v4-flash", "deepseek-v4-pro")
_BATCH = 250_000
_FRESH = 10_000
# As good as random, the same in every run: request `number` is of a key of the largest tenant, or
# of the tenant whose rank is a power of the number of tenants, so that a few have most.
_WRITE = text("""
    INSERT INTO usage_events (request_id, tenant_id, api_key_id, model, path, thinking, streamed,
        hit_tokens, miss_tokens, output_tokens, reasoning_tokens, finish_reason, started_at,
        price_version_id, band, charge_p)
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000'
            || lpad(to_hex(number), 12, '0'))::uuid,
        tenant_ids[owner], api_key_ids[owner], (CAST(:models AS text[]))[model], 'serverless',
        number % 3 = 0, true, 100 + number % 900, 200, 50 + number % 500, number % 50, 'stop',
        moment, (CAST(:price_version_ids AS uuid[]))[model], 'standard', 1000000 + number % 1000
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS number
    CROSS JOIN (SELECT CAST(:tenant_ids AS uuid[]) AS tenant_ids,
                       CAST(:api_key_ids AS uuid[]) AS api_key_ids) AS owners
    CROSS JOIN LATERAL (SELECT hashint8(number) & 65535 AS drawn) AS chance
    CROSS JOIN LATERAL (
        SELECT CASE WHEN number % 2 = 0 THEN 1 + drawn % :keys
                    ELSE :keys + power(:others, drawn / 65536.0)::int END AS owner,
               CASE WHEN drawn % 4 = 0 THEN 2 ELSE 1 END AS model,
               CAST(:since AS timestamptz) + number * CAST(:step AS interval) AS moment
    ) AS told
""")
_REFERENCES = text("""
    SELECT conrelid::regclass::text AS of, conname AS name, pg_get_constraintdef(oid) AS told
    FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
        AND conrelid IN ('usage_events'::regclass, 'usage_rollups'::regclass)
""")


@dataclass(frozen=True)
class _Owners:
    """Keys that requests are made with, those of the largest tenant first."""

    tenant_ids: list[object]
    api_key_ids: list[object]
    price_version_ids: list[object]
    of_largest: int


def fill(world: World, count: int, since: datetime) -> None:
    """Write `count` events of `DAYS` days; all but the last few are rolled up, as between two
    ticks of the job.
    """
    with world.sessions().begin() as session:
        owners = _owners(session, world)
    step = timedelta(days=DAYS) / count
    last_batch = count - _FRESH
    with world.sessions()() as session, _without_references(session):
        for first in [*range(0, last_batch, _BATCH), last_batch]:
            _roll_up_all(session)
            end = min(first + _BATCH, last_batch if first < last_batch else count)
            _write(session, owners, range(first, end), since, step)
    _settle_down(world)


def _owners(session: Session, world: World) -> _Owners:
    versions = {it.model: it.id for it in book.listing(session)}
    for model in MODELS:
        if model not in versions:
            versions[model] = book.publish(
                session, model=model, hit_rate_p=1, miss_rate_p=2, output_rate_p=3
            ).id
    largest = world.customers[0].tenant_id
    made = [
        keys.issue(
            session, b"pepper", tenant_id=largest, name=f"{project.name} {number}",
            project_id=project.id,
        )[0].id
        for project in [
            projects.create(session, tenant_id=largest, name=f"project {number}")
            for number in range(PROJECTS)
        ]
        for number in range(KEYS_OF_A_PROJECT)
    ]  # fmt: skip
    others = world.customers[1:]
    return _Owners(
        tenant_ids=[largest] * len(made) + [it.tenant_id for it in others],
        api_key_ids=made + [it.api_key_id for it in others],
        price_version_ids=[versions[model] for model in MODELS],
        of_largest=len(made),
    )


@contextmanager
def _without_references(session: Session) -> Iterator[None]:
    """Take the foreign keys away, which take half of the time row by row; prove them at the end."""
    found = session.execute(_REFERENCES).all()
    for it in found:
        session.execute(text(f"ALTER TABLE {it.of} DROP CONSTRAINT {it.name}"))
    session.execute(text("SET synchronous_commit = off"))
    session.commit()
    yield
    for it in found:
        session.execute(text(f"ALTER TABLE {it.of} ADD CONSTRAINT {it.name} {it.told}"))
    session.commit()


def _roll_up_all(session: Session) -> None:
    while rollups.roll_up(session, 100_000):
        session.commit()
    session.commit()


def _write(
    session: Session, owners: _Owners, numbers: range, since: datetime, step: timedelta
) -> None:
    session.execute(
        _WRITE,
        {
            "first": numbers.start,
            "last": numbers.stop - 1,
            "tenant_ids": owners.tenant_ids,
            "api_key_ids": owners.api_key_ids,
            "models": list(MODELS),
            "price_version_ids": owners.price_version_ids,
            "keys": owners.of_largest,
            "others": len(owners.tenant_ids) - owners.of_largest,
            "since": since,
            "step": step,
        },
    )
    session.commit()


def _settle_down(world: World) -> None:
    """Vacuum, as the server itself does within minutes of so much change."""
    with world.sessions().kw["bind"].connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
