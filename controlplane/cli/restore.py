"""`flashplane restore`: brings a database from a dump up to what the journals tell."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import structs

from controlplane import log
from controlplane.cli.output import AsJson
from controlplane.errors import StartupError
from controlplane.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from controlplane.billing.restoring.restore import Restored

Journals = Annotated[
    list[Path],
    typer.Option(
        "--journal",
        help="A gateway's journal folder; once for each gateway.",
        exists=True,
        file_okay=False,
    ),
]
WorkerJournals = Annotated[
    list[Path] | None,
    typer.Option(
        "--worker-journal",
        help="An engine's journal (SQLite), for a gateway whose disk is lost. Only when every"
        " gateway's journal that still exists is given: what none of them tells is lost.",
        exists=True,
        dir_okay=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; do nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("restore", rich_help_panel="Processes")(restore_database)


def restore_database(
    journal: Journals,
    worker_journal: WorkerJournals = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bill again what was settled after the dump that DATABASE_URL was restored from.

    \b
    1. Stop the gateways and the jobs.
    2. Restore the dump, with PostgreSQL's own pg_restore.
    3. Do again the top-ups since then: journals tell what was used, not what was paid.
    4. flashplane restore --journal /var/lib/flashplane/journal
    5. Start everything.

    Doing it again changes nothing, so what is set aside for want of money is billed by another run
    after the top-up. Gateways keep journals for FLASHPLANE_JOURNAL_KEEP_HOURS: make dumps more
    often. Requests alone come back; prices, customers and GPU time since the dump do not. The exit
    code is 1 when the books are not exact, or something was set aside or cannot be read.
    """
    from controlplane.db import open_engine
    from controlplane.usage.journal import JournalDir

    settings = Settings()
    if not settings.database_url:
        raise StartupError("Set DATABASE_URL to the database that was restored from a dump.")
    log.configure("restore", log_dir=settings.log_dir, level=settings.log_level)
    engine = open_engine(settings.database_url, pool_size=1)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        for path in journal:
            # Kept without an end: what this needs must not be thrown away by it.
            owned = JournalDir(path, keep_seconds=float("inf"))
            stack.callback(owned.close)
        done = _restore(engine, journal, worker_journal or (), dry_run=dry_run)
    typer.echo(_json(done) if as_json else _words(done, dry_run=dry_run))
    if done.set_aside or done.damages or done.violations:
        raise typer.Exit(1)


def _restore(
    engine: "Engine", folders: Sequence[Path], engine_files: Sequence[Path], *, dry_run: bool
) -> "Restored":
    from sqlalchemy.orm import sessionmaker

    from controlplane.billing.restoring.restore import restore
    from controlplane.db import session_factory

    if not dry_run:
        return restore(session_factory(engine), folders=folders, engine_files=engine_files)
    with engine.connect() as connection, connection.begin() as everything:
        sessions = sessionmaker(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        done = restore(sessions, folders=folders, engine_files=engine_files)
        everything.rollback()
    return done


def _json(done: "Restored") -> str:
    aside = [asdict(it) | {"usage": structs.asdict(it.usage)} for it in done.set_aside]
    told = asdict(done) | {"set_aside": aside}
    return msgspec.json.encode(told, enc_hook=str).decode()


def _words(done: "Restored", *, dry_run: bool) -> str:
    lines = ["This was a dry run: nothing is changed."] if dry_run else []
    lines += [
        f"billed again: {done.billed:,} requests",
        f"already there: {done.already_there:,}",
        f"billed by an engine's word: {len(done.witnessed):,}",
        *(f"  {request_id}" for request_id in done.witnessed),
        f"set aside: {len(done.set_aside):,}",
    ]
    for it in done.set_aside:
        usage = it.usage
        lines.append(
            f"  {it.request_id} of tenant {it.tenant_id or 'unknown'}: {usage.hit_tokens} hit,"
            f" {usage.miss_tokens} miss, {usage.output_tokens} output tokens: {it.reason}"
        )
    for damage in done.damages:
        lines.append(f"damaged: {damage.segment} beyond {damage.offset_bytes:,} bytes")
    lines += (f"not exact: {violation}" for violation in done.violations)
    lines.append(f"ledger hash: {done.ledger.sha256} of {done.ledger.transactions:,} transactions")
    return "\n".join(lines)
