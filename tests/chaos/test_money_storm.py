"""Everything that money goes through is killed and frozen at random; then every sum is exact.

pytest tests/chaos/test_money_storm.py --storm-seed 7
pytest -m storm tests/chaos/test_money_storm.py --storm-seconds 3600
"""

import asyncio
import random
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from support.books import violations
from support.invariants import (
    ALWAYS,
    IDLE,
    broken,
    final_invoices,
    ledger_hash,
    unwitnessed,
)
from support.polling import until
from support.storm_customers import crowd, open_accounts
from support.storm_renter import Renter
from support.storm_site import Site, site
from support.traffic import MODEL, Outcome

from controlplane.billing.books import check_books
from controlplane.billing.reconcile import report
from controlplane.billing.settlement import settle
from controlplane.db import session_factory
from controlplane.pricing import book
from controlplane.usage.journal import JournalDir
from controlplane.usage.recovery import replay

QUIET_SECONDS = 90
DEAR_P = 10**6  # a few requests at that price use up what customers have


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The given seed or a fresh one, told by whatever fails."""
    given: int | None = request.config.getoption("--storm-seed")
    chosen = random.SystemRandom().randrange(2**32) if given is None else given
    print(f"--storm-seed {chosen}")  # noqa: T201
    return chosen


class Storm:
    """A site in a storm, with what was kept of it for later."""

    def __init__(
        self, it: Site, sessions: sessionmaker[Session], rng: random.Random, renter: Renter
    ) -> None:
        self.site = it
        self.sessions = sessions
        self.copies: list[Path] = []
        self.hits: list[str] = []
        self.looks = 0
        self.invoices: dict[str, str] = {}
        self._rng = rng
        self.publish_price()
        self.tokens = open_accounts(sessions)
        self.renter = renter

    def publish_price(self, most_p: int = 300_000) -> None:
        """Another price from now on, in p$ per token; running requests keep theirs."""
        hit, miss, output = sorted(self._rng.randint(most_p // 10, most_p) for _ in range(3))
        with self.sessions.begin() as session:
            book.publish(
                session, model=MODEL, hit_rate_p=hit, miss_rate_p=miss, output_rate_p=output
            )

    async def blow(self, seconds: float) -> None:
        """Break one piece after another, each at least once; all of them run in the end."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        names = sorted(self.site.pieces)
        plan = self._rng.sample(names, len(names))
        while plan or loop.time() < ends_at:
            name = plan.pop() if plan else self._rng.choice(names)
            how = self._rng.choice(["kill", "kill", "freeze"])
            if name == "valkey" and self._rng.random() < 0.5:
                how = "flush"
            self.hits.append(f"{how} {name}")
            await self._hit(name, how, self._rng.uniform(0.1, 1.5))
            if name == "postgres":
                await asyncio.to_thread(until, self._price_changed, seconds=30, what="a price")
            await asyncio.sleep(self._rng.uniform(0.5, 2.0))

    async def _hit(self, name: str, how: str, seconds: float) -> None:
        piece = self.site.pieces[name]
        if how == "flush":
            self.site.flush()
        elif how == "freeze":
            piece.freeze()
            await asyncio.sleep(seconds)
            piece.thaw()
        else:
            await asyncio.to_thread(piece.kill)
            self.keep_journal(name)
            await asyncio.sleep(seconds)
            piece.start()

    def _price_changed(self) -> bool:
        try:
            self.publish_price()
        except OperationalError:
            return False
        return True

    def keep_journal(self, name: str) -> None:
        """Copy what a dead gateway left, to be delivered again later."""
        if name in self.site.gateway_urls and self.site.journal(name).exists():
            copy = self.site.folder / f"copy-{len(self.copies)}"
            shutil.copytree(self.site.journal(name), copy)
            self.copies.append(copy)

    async def watch(self, stop: asyncio.Event) -> None:
        """Look again and again whether what must always be true is."""
        while not stop.is_set():
            try:
                wrong = await asyncio.to_thread(broken, self.site.database_url, ALWAYS)
                self.invoices |= await asyncio.to_thread(
                    final_invoices, self.site.database_url, self.invoices.keys()
                )
            except psycopg.OperationalError:  # PostgreSQL is down
                await asyncio.sleep(0.1)
                continue
            assert wrong == []
            self.looks += 1
            await asyncio.sleep(0.1)

    def quiesce(self) -> None:
        """Wait until every piece answers and nothing is held, staged or unjudged."""
        for piece in self.site.pieces.values():
            if piece.died():  # of itself, as when it found its servers gone: its keeper's turn
                piece.start()
        self.site.wait_ready()
        until(self._is_quiet, seconds=QUIET_SECONDS, what="quiet books")

    def _is_quiet(self) -> bool:
        try:
            return (
                not violations(self.site.database_url)
                and not self.renter.wrong(self.site.database_url)
                and not self.reconciled().waiting
            )
        except (psycopg.OperationalError, OperationalError):
            return False

    def reconciled(self) -> report.Reconciliation:
        """What reconciliation says of today."""
        now = datetime.now(UTC)
        with self.sessions.begin() as session:
            return report.report(session, since=now - timedelta(days=1), until=now)

    def findings(self) -> list[Any]:
        """Everything known of what reconciliation found."""
        with psycopg.connect(self.site.database_url) as connection:
            return connection.execute(
                "SELECT f::text, u::text, a::text FROM reconciliation_findings AS f"
                " LEFT JOIN usage_events AS u USING (request_id)"
                " LEFT JOIN witnessed_attempts AS a USING (request_id)"
            ).fetchall()

    def ask(self, who: str, **fields: Any) -> httpx.Response:
        """One request of a customer to the first gateway."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        return httpx.post(
            f"{self.site.gateway_urls['gateway-0']}/v1/chat/completions",
            json=body | {"max_tokens": 8, "temperature": 0} | fields,
            headers={"authorization": f"Bearer {self.tokens[who]}"},
            timeout=60,
            trust_env=False,
        )

    def use_up(self, who: str) -> str:
        """Buy until nothing is sold though nothing is held either; return the refusal's code."""

        def refusal() -> httpx.Response | None:
            answer = self.ask(who, max_tokens=64)
            return None if answer.status_code == 200 else answer

        while True:
            until(refusal, seconds=60, what=f"a refusal of {who}")
            self.quiesce()
            if (answer := refusal()) is not None:
                assert answer.status_code == 402, answer.text
                code: str = answer.json()["error"]["code"]
                return code


@pytest.fixture
def sessions_of() -> Iterator[Any]:
    """Makes sessions that keep no connection: their servers are killed."""
    engines = []

    def make(url: str) -> sessionmaker[Session]:
        engines.append(
            create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
        )
        return session_factory(engines[-1])

    yield make
    for engine in engines:
        engine.dispose()


@pytest.mark.timeout(600)
async def test_a_storm_of_kills_leaves_exact_money(
    tmp_path: Path, sessions_of: Any, seed: int
) -> None:
    with site(tmp_path, gateways=2, workers=2, closes_months=True) as it:
        await assert_exact_after(it, sessions_of(it.database_url), seed=seed, seconds=15)


@pytest.mark.storm
@pytest.mark.timeout(24 * 3600)
async def test_a_long_storm_of_kills_leaves_exact_money(
    tmp_path: Path, sessions_of: Any, seed: int, request: pytest.FixtureRequest
) -> None:
    seconds: float = request.config.getoption("--storm-seconds")
    with site(tmp_path, gateways=3, workers=2, closes_months=True) as it:
        await assert_exact_after(it, sessions_of(it.database_url), seed=seed, seconds=seconds)


async def assert_exact_after(
    it: Site, sessions: sessionmaker[Session], *, seed: int, seconds: float
) -> None:
    """Let a storm blow over busy customers; then hold every rule against what is left."""
    renter = Renter(sessions, life_seconds=seconds / 5, seed=seed)
    storm = Storm(it, sessions, random.Random(seed), renter)
    with renter.proven(it.valkey.url):
        outcomes = await weather(storm, seed=seed, seconds=seconds)
        renter.end()
        await asyncio.to_thread(assert_exact, storm, outcomes)


async def weather(storm: Storm, *, seed: int, seconds: float) -> list[tuple[str, Outcome]]:
    """Let a storm blow over busy customers; return who of them saw what."""
    stop = asyncio.Event()
    urls = list(storm.site.gateway_urls.values())
    customers = asyncio.create_task(crowd(urls, storm.tokens, stop, seed=seed))
    watching = asyncio.create_task(storm.watch(stop))
    try:
        await storm.blow(seconds)
    finally:
        stop.set()
        outcomes = await customers
        await watching
    print(storm.hits)  # noqa: T201
    return outcomes


def assert_exact(storm: Storm, outcomes: list[tuple[str, Outcome]]) -> None:
    """Hold every rule, once all is quiet again."""
    storm.quiesce()
    assert storm.looks > 10
    assert_billed_what_was_seen(storm, [outcome for _, outcome in outcomes])
    assert_nothing_is_sold_to_the_exhausted(storm)
    assert_streamed_costs_what_buffered_costs(storm)
    storm.quiesce()
    assert broken(storm.site.database_url, ALWAYS | IDLE) == []
    with storm.sessions.begin() as session:
        assert check_books(session).violations == []
    reconciled = storm.reconciled()
    assert reconciled.ok, storm.findings()
    assert reconciled.billed == reconciled.charged
    assert_final_invoices_never_changed(storm)
    assert_replays_change_nothing(storm)
    for name in storm.site.worker_urls:
        storm.site.pieces[name].kill()
    journals = [storm.site.witness(name) for name in storm.site.worker_urls]
    assert unwitnessed(storm.site.database_url, journals) == []


def assert_billed_what_was_seen(storm: Storm, outcomes: list[Outcome]) -> None:
    """Nobody got more than was billed: each delta but role, end and usage carries a token."""
    with psycopg.connect(storm.site.database_url) as connection:
        bills = dict(connection.execute("SELECT request_id, output_tokens FROM usage_events"))
    answered = [it for it in outcomes if it.status == 200 and it.request_id]
    assert len(answered) > 10, outcomes
    for outcome in answered:
        output_tokens = bills[uuid.UUID(outcome.request_id)]
        assert output_tokens >= outcome.deltas - 3, outcome
        if outcome.finished and outcome.output_tokens is not None:
            assert output_tokens == outcome.output_tokens, outcome


def assert_nothing_is_sold_to_the_exhausted(storm: Storm) -> None:
    """I12: who has nothing left gets nothing, also from gateways that lost all of Valkey."""
    storm.publish_price(DEAR_P)
    assert storm.use_up("dry") == "insufficient_balance"
    assert storm.use_up("credit") == "insufficient_balance"
    assert storm.use_up("budget") == "budget_exceeded"
    for _ in range(5):
        storm.site.flush()
        for who in ("dry", "credit", "budget"):
            assert storm.ask(who, max_tokens=64).status_code != 200, who


def assert_streamed_costs_what_buffered_costs(storm: Storm) -> None:
    """I11: the same answer costs the same, however it is sent."""
    storm.site.pieces["worker-1"].kill()  # its cache may know other prompts
    until(lambda: storm.ask("rich").status_code == 200, seconds=60, what="an answer")
    answers = [storm.ask("rich"), storm.ask("rich", stream=True)]
    assert [it.status_code for it in answers] == [200, 200]
    storm.site.pieces["worker-1"].start()
    storm.quiesce()
    with psycopg.connect(storm.site.database_url) as connection:
        bills = [
            connection.execute(
                "SELECT hit_tokens, miss_tokens, output_tokens, charge_p FROM usage_events"
                " WHERE request_id = %s",
                (it.headers["x-request-id"],),
            ).fetchone()
            for it in answers
        ]
    assert bills[0] == bills[1] is not None


def assert_final_invoices_never_changed(storm: Storm) -> None:
    """I8: what was final at any moment of the storm reads the same now."""
    assert storm.invoices
    now = final_invoices(storm.site.database_url)
    assert storm.invoices.items() <= now.items()


def assert_replays_change_nothing(storm: Storm) -> None:
    """I6: every journal delivered again, three times in any order, is the same ledger."""
    for name in storm.site.gateway_urls:
        storm.site.pieces[name].kill()
        storm.keep_journal(name)
        storm.site.pieces[name].start()
    storm.quiesce()
    before = ledger_hash(storm.site.database_url)
    copies = storm.copies * 3
    random.Random(len(copies)).shuffle(copies)
    for number, copy in enumerate(copies):
        again = shutil.copytree(copy, storm.site.folder / f"again-{number}")
        directory = JournalDir(again)
        replay(storm.sessions, directory, f"again-{number}")
        directory.close()
    with storm.sessions.begin() as session:
        while settle(session, 500):
            pass
    storm.quiesce()
    assert ledger_hash(storm.site.database_url) == before
