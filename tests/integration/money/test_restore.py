"""A dump and the journals since give the ledger back to the last picodollar."""

import asyncio
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from support.dumps import dump
from support.shop import GATEWAY, Customer, Shop, final, progress
from typer.testing import CliRunner

from controlplane.accounts import epochs, ledger
from controlplane.accounts.corrections import grant
from controlplane.accounts.ledger_hash import ledger_hash
from controlplane.billing.restoring.restore import Restored, restore
from controlplane.cli.main import app
from controlplane.db import open_engine, session_factory
from controlplane.usage import sink
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.models import UsageEvent
from controlplane.usage.records import TokenUsage
from controlplane.usage.recovery import recover

HOUR = 3600.0


class Gateway:
    """One life of a gateway: holds, writes its journal, ships, forgets."""

    def __init__(self, shop: Shop, path: Path, name: str) -> None:
        self.shop = shop
        self.directory = JournalDir(path, keep_seconds=HOUR)
        with shop.sessions.begin() as session:
            self.epoch_id = epochs.begin(session, name)
        self.journal = Journal(self.directory, self.epoch_id, segment_bytes=2_000)

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


async def lose(shop: Shop, tmp_path: Path, *, top_up_p: int = 0) -> Lost:
    """Two gateways serve, one dies and comes back; the dump is from the middle of it."""
    rich, given = shop.customer(10**12), shop.customer(10**10)
    with shop.sessions.begin() as session:
        grant(
            session,
            tenant_id=given.tenant_id,
            amount_p=5_000_000,
            reason="welcome",
            author="test",
        )
    folders = [tmp_path / "one", tmp_path / "two"]
    one, two = (Gateway(shop, path, path.name) for path in folders)
    await one.serve(rich, 10)
    await two.serve(given, 5)
    dump_url = dump_of(shop)
    if top_up_p:
        shop.top_up(rich, top_up_p)
    await one.serve(given, 25)
    await two.serve(rich, 25)
    await one.die(rich)
    directory = JournalDir(folders[0], keep_seconds=HOUR)
    recover(shop.sessions, directory, "one")
    directory.close()
    shop.settle()
    third = Gateway(shop, folders[0], "one")
    await third.serve(rich, 10)
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
    assert (done.billed, done.already_there) == (62, 15)
    assert done.ledger.sha256 == lost.sha256
    with opened(lost.dump_url) as sessions:
        assert tokens(sessions) == tokens(shop.sessions)


async def test_restoring_twice_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    lost = await lose(shop, tmp_path)
    again(lost)
    done = again(lost)
    assert (done.billed, done.already_there) == (0, 77)
    assert done.ledger.sha256 == lost.sha256
    assert done.violations == []
