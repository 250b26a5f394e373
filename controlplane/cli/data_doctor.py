"""What `flashplane doctor` finds in the database and in Redis: whether money moves as it should.

Called by `doctor` for the product that runs here and by `cluster_doctor` for one in a cluster.
"""

import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import redis
from sqlalchemy import exc

from controlplane import schema
from controlplane.billing import stray
from controlplane.billing.books import check_books
from controlplane.billing.stray import Stray
from controlplane.cli.findings import Finding
from controlplane.db import open_engine, session_factory
from controlplane.errors import StartupError
from controlplane.registry import gateways
from controlplane.store import open_store

_JOBS = "see that `flashplane jobs` and `flashplane beat` run, and the jobs' log"
# What is called, what of `Stray` counts it, what it is, what to do.
_WAITING = (
    (
        "Rejected usage",
        "rejected",
        "requests contradict the database and are not billed",
        "`flashplane rejected list` tells why; then retry them or write them off",
    ),
    ("Settlement", "unsettled", "requests have waited for more than a minute", _JOBS),
    ("Holds", "unreleased", "holds of dead gateways are not given back", _JOBS),
    (
        "Reconciliation",
        "unexplained",
        "requests whose bill and engines differ are not explained",
        "`flashplane reconcile --findings` lists them",
    ),
    (
        "Invoices",
        "refused_invoices",
        "are set aside before they are final",
        "`flashplane invoices list --json` tells why in `refused`",
    ),
)


def examine(database_url: str, redis_url: str) -> Iterator[Finding]:
    """Return the findings about a database and a Redis, one after the other."""
    yield database(database_url)
    yield store(redis_url)
    if not database_url:
        return
    try:
        if schema.check(database_url):
            yield from money(database_url, _alive(redis_url) if redis_url else None)
    except (StartupError, exc.SQLAlchemyError):
        return  # has been told


def database(url: str) -> Finding:
    """See whether the database can be reached from here and has this version's schema."""
    if not url:
        return Finding("Database", True, "not checked, set DATABASE_URL to")
    try:
        current = schema.check(url)
    except StartupError as error:
        return Finding("Database", False, "cannot be used", str(error))
    except exc.SQLAlchemyError as error:
        return Finding("Database", False, f"cannot be reached ({type(error).__name__})", "see URL")
    if not current:
        detail = "reachable; its schema will be migrated by the next install or upgrade"
        return Finding("Database", True, detail)
    return Finding("Database", True, "reachable, its schema is current")


def store(url: str) -> Finding:
    """See whether Redis can be reached from here."""
    if not url:
        return Finding("Redis", True, "not checked, set REDIS_URL to")
    client = open_store(url)
    try:
        client.ping()
    except redis.RedisError as error:
        return Finding("Redis", False, f"cannot be reached ({type(error).__name__})", "see its URL")
    finally:
        client.close()
    return Finding("Redis", True, "reachable")


def money(database_url: str, alive: Collection[str] | None) -> Iterator[Finding]:
    """Return what the database tells of money that does not move as it should.

    Args:
        alive: the gateways that run; None: it cannot be known.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    engine = open_engine(database_url, pool_size=1)
    try:
        with session_factory(engine).begin() as session:
            violations = check_books(session).violations
            found = stray.find(session, datetime.now(UTC))
    finally:
        engine.dispose()
    if violations:
        fix = "`flashplane books` tells all; keep the journals, nothing repairs itself"
        yield Finding("Books", False, f"not exact: {violations[0]}", fix)
    else:
        yield Finding("Books", True, "exact")
    yield from judge(found)
    yield journals(found, alive)


def judge(found: Stray) -> Iterator[Finding]:
    """Judge what waits in the database."""
    for check, field, what, fix in _WAITING:
        count = getattr(found, field)
        if count:
            yield Finding(check, False, f"{count} {what}", fix)
        else:
            yield Finding(check, True, "nothing waits")


def journals(found: Stray, alive: Collection[str] | None) -> Finding:
    """Name the gateways that are gone and whose journals nobody has replayed."""
    if alive is None:
        return Finding("Journals", True, "not checked, set REDIS_URL to")
    dead = [it for it in found.lives if it.gateway not in alive]
    if not dead:
        return Finding("Journals", True, f"of {len(found.lives)} gateways that run")
    told = ", ".join(
        f"{it.gateway} since {it.since:%Y-%m-%d %H:%M} with {it.open_holds} open holds"
        for it in dead
    )
    fix = "start these gateways again, or run `flashplane gateway-replay` where their journals are"
    return Finding("Journals", False, f"not replayed: {told}", fix)


def _alive(redis_url: str) -> set[str] | None:
    client = open_store(redis_url)
    try:
        return {it.gateway for it in gateways.TABLE.read(client, time.time())}
    except redis.RedisError:
        return None
    finally:
        client.close()
