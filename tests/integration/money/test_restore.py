"""A dump and the journals since give the ledger back to the last picodollar."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from support.dumps import dump
from support.shop import Customer, Shop, final, progress
from typer.testing import CliRunner

from controlplane.accounts import epochs
from controlplane.accounts.corrections import grant
from controlplane.accounts.ledger_hash import ledger_hash
from controlplane.billing.restoring.restore import Restored, restore
from controlplane.cli.commands import app
from controlplane.db import open_engine, session_factory
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.models import UsageEvent
from controlplane.usage.records import TokenUsage
from controlplane.usage.recovery import recover
from worker.server.journal_store import JournalStore, Row

HOUR = 3600.0


class Gateway:
    """One life of a gateway: holds, writes its journal, ships, forgets."""

    def __init__(self, shop: Shop, path: Path, name: str) -> None:
        self.shop = shop
        self.directory = JournalDir(path, keep_seconds=HOUR)
        with shop.sessions.begin() as session:
            self.epoch_id = epochs.begin(session, name)
        self.journal = Journal(self.directory, self.epoch_id, segment_bytes=1_000)

    async def serve(self, customer: Customer, count: int) -> list[uuid.UUID]:
        """Serve requests to their settlement; every fifth says more than its hold covers."""
        self.shop.epoch_id = self.epoch_id
        served = []
        for number in range(count):
            request = self.shop.request(customer, max_tokens=10)
            (plan,) = self.shop.place(request)
            request_id = request.request_id
            self.journal.append(self.shop.opened(customer, request_id, plan))
            usage = TokenUsage(number, 7, 2 + number % 5 * 4, 1)
            self.journal.append(progress(request_id, TokenUsage(number, 7, 1, 0)))
            trace = await self.journal.final(final(request_id, usage))
            self.shop.stage(trace)
            self.journal.retire([request_id])
            served.append(request_id)
        self.shop.settle()
        return served

    async def die(self, customer: Customer) -> None:
        """Leave a request half-way and an end that was not shipped."""
        self.shop.epoch_id = self.epoch_id
        for end in (False, True):
            request = self.shop.request(customer)
            (plan,) = self.shop.place(request)
            self.journal.append(self.shop.opened(customer, request.request_id, plan))
            self.journal.append(progress(request.request_id, TokenUsage(1, 2, 3, 0)))
            if end:
                await self.journal.final(final(request.request_id, TokenUsage(1, 2, 5, 0)))
        await self.stop()

    async def stop(self) -> None:
        await self.journal.close()
        self.directory.close()


@dataclass
class Lost:
    """A database that was dumped, went on and is lost, and what its hash was."""

    dump_url: str
    folders: Sequence[Path]
    sha256: str


def sha256(sessions: sessionmaker[Session]) -> str:
    with sessions.begin() as session:
        return ledger_hash(session).sha256


@contextmanager
def opened(url: str) -> Iterator[sessionmaker[Session]]:
    engine = open_engine(url)
    try:
        yield session_factory(engine)
    finally:
        engine.dispose()


def tokens(sessions: sessionmaker[Session]) -> tuple[int, ...]:
    query = select(
        func.sum(UsageEvent.hit_tokens),
        func.sum(UsageEvent.miss_tokens),
        func.sum(UsageEvent.output_tokens),
    )
    with sessions.begin() as session:
        return tuple(map(int, session.execute(query).one()))


def dump_of(shop: Shop) -> str:
    engine = shop.sessions.kw["bind"]
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    engine.dispose()
    return dump(url, f"dump_{uuid.uuid4().hex}")


async def lose(shop: Shop, tmp_path: Path) -> Lost:
    """Two gateways serve, one dies and comes back; the dump is from the middle of it."""
    rich, given = shop.customer(10**12), shop.customer(10**10)
    with shop.sessions.begin() as session:
        grant(
            session,
            tenant_id=given.tenant_id,
            amount_p=12_000_000,  # used up after the dump
            reason="welcome",
            author="test",
        )
    folders = [tmp_path / "one", tmp_path / "two"]
    one, two = (Gateway(shop, path, path.name) for path in folders)
    await one.serve(rich, 5)
    await two.serve(given, 3)
    dump_url = dump_of(shop)
    await one.serve(given, 10)
    await two.serve(rich, 10)
    await one.die(rich)
    directory = JournalDir(folders[0], keep_seconds=HOUR)
    recover(shop.sessions, directory, "one")
    directory.close()
    shop.settle()
    third = Gateway(shop, folders[0], "one")
    await third.serve(rich, 5)
    await third.stop()
    await two.stop()
    assert shop.books().violations == []
    return Lost(dump_url, folders, sha256(shop.sessions))


def again(lost: Lost) -> Restored:
    with opened(lost.dump_url) as sessions:
        return restore(sessions, folders=lost.folders)


async def test_a_dump_and_the_journals_give_the_same_ledger(shop: Shop, tmp_path: Path) -> None:
    lost = await lose(shop, tmp_path)
    done = again(lost)
    assert done.set_aside == []
    assert done.damages == []
    assert done.violations == []
    assert (done.billed, done.already_there) == (27, 8)
    assert done.ledger.sha256 == lost.sha256
    with opened(lost.dump_url) as sessions:
        assert tokens(sessions) == tokens(shop.sessions)


async def test_restoring_twice_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    lost = await lose(shop, tmp_path)
    again(lost)
    done = again(lost)
    assert (done.billed, done.already_there) == (0, 35)
    assert done.ledger.sha256 == lost.sha256
    assert done.violations == []


async def test_a_copy_of_a_journal_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    lost = await lose(shop, tmp_path)
    copy = shutil.copytree(lost.folders[0], tmp_path / "copy")
    done = again(Lost(lost.dump_url, [*lost.folders, copy], lost.sha256))
    assert (done.billed, done.set_aside, done.violations) == (27, [], [])
    assert done.ledger.sha256 == lost.sha256


async def test_a_start_before_the_restore_hides_nothing(shop: Shop, tmp_path: Path) -> None:
    lost = await lose(shop, tmp_path)
    with opened(lost.dump_url) as sessions:
        for folder in lost.folders:
            directory = JournalDir(folder, keep_seconds=HOUR)
            recover(sessions, directory, folder.name)
            directory.close()
    assert again(lost).ledger.sha256 == lost.sha256


async def test_a_dry_run_tells_the_hash_and_changes_nothing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await lose(shop, tmp_path)
    with opened(lost.dump_url) as sessions:
        before = sha256(sessions)
    monkeypatch.setenv("DATABASE_URL", lost.dump_url)
    options = [it for folder in lost.folders for it in ("--journal", str(folder))]
    dry = CliRunner().invoke(app, ["restore", "--dry-run", *options])
    assert dry.exit_code == 0, dry.output
    assert "This was a dry run" in dry.output
    assert lost.sha256 in dry.output
    with opened(lost.dump_url) as sessions:
        assert sha256(sessions) == before
    assert CliRunner().invoke(app, ["restore", *options]).exit_code == 0
    with opened(lost.dump_url) as sessions:
        assert sha256(sessions) == lost.sha256


async def test_what_a_lost_top_up_paid_is_set_aside_until_it_is_made_again(
    shop: Shop, tmp_path: Path
) -> None:
    customer = shop.customer(10**6)
    dump_url = dump_of(shop)
    shop.top_up(customer, 10**12)
    gateway = Gateway(shop, tmp_path / "one", "one")
    served = await gateway.serve(customer, 5)
    await gateway.stop()
    wanted = sha256(shop.sessions)
    with opened(dump_url) as sessions:
        done = restore(sessions, folders=[tmp_path / "one"])
        assert [it.request_id for it in done.set_aside] == served
        assert {it.tenant_id for it in done.set_aside} == {customer.tenant_id}
        assert {it.reason for it in done.set_aside} == {"its account cannot pay it"}
        assert done.violations == []
        restored = object.__new__(Shop)
        restored.sessions = sessions
        restored.top_up(customer, 10**12)
        done = restore(sessions, folders=[tmp_path / "one"])
    assert (done.billed, done.set_aside) == (5, [])
    assert done.ledger.sha256 == wanted


async def test_an_engines_journal_bills_what_has_a_hold_and_tells_the_rest(
    shop: Shop, tmp_path: Path
) -> None:
    customer = shop.customer(10**12)
    gateway = Gateway(shop, tmp_path / "lost", "lost")
    shop.epoch_id = gateway.epoch_id
    running = shop.hold(customer)
    dump_url = dump_of(shop)
    usage = TokenUsage(3, 7, 5, 1)
    shop.stage(shop.trace(customer, running, usage))
    later = shop.hold(customer)
    shop.stage(shop.trace(customer, later, usage))
    shop.settle()
    await gateway.stop()
    (tmp_path / "nothing").mkdir()
    engine_file = engine_journal(tmp_path / "engine.sqlite", {running: usage, later: usage})
    with opened(dump_url) as sessions:
        done = restore(sessions, folders=[tmp_path / "nothing"], engine_files=[engine_file])
        assert done.witnessed == [running]
        assert tokens(sessions) == (3, 7, 5)
        (aside,) = done.set_aside
        assert (aside.request_id, aside.tenant_id, aside.usage) == (later, None, usage)
        assert done.violations == []
        again_done = restore(sessions, folders=[tmp_path / "nothing"], engine_files=[engine_file])
    assert again_done.witnessed == []
    assert again_done.ledger == done.ledger


def engine_journal(path: Path, used: dict[uuid.UUID, TokenUsage]) -> Path:
    """Write an engine's journal with one attempt at each request."""
    store = JournalStore(path)
    rows = [
        Row(
            attempt_id=uuid.uuid4().hex,
            request_id=str(request_id),
            model="deepseek-v4-flash",
            started_us=1,
            prompt_tokens=usage.hit_tokens + usage.miss_tokens,
            prompt_cache_hit_tokens=usage.hit_tokens,
            prompt_cache_miss_tokens=usage.miss_tokens,
            completion_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            resumed_tokens=0,
            finish_reason="stop",
        )
        for request_id, usage in used.items()
    ]
    store.write([], rows)
    store.close()
    return path


async def test_an_older_journal_without_holds_is_told(shop: Shop, tmp_path: Path) -> None:
    customer = shop.customer(10**12)
    dump_url = dump_of(shop)
    directory = JournalDir(tmp_path / "one")
    journal = Journal(directory, shop.epoch_id)
    request_id = shop.hold(customer)
    journal.append(shop.opened(customer, request_id))
    await journal.final(final(request_id, TokenUsage(1, 2, 3, 0)))
    await journal.close()
    directory.close()
    with opened(dump_url) as sessions:
        done = restore(sessions, folders=[tmp_path / "one"])
    assert [it.reason for it in done.set_aside] == ["its journal does not tell its hold"]
    assert done.violations == []
