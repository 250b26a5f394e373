"""PostgreSQL is gone for long while customers go on: what runs ends and is billed, what comes is
told when to come again, nothing piles up, and the books are exact afterwards.

pytest -m storm tests/chaos/test_long_outage.py --storm-seconds 300
"""

import asyncio
import random
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from support.books import violations
from support.invariants import ALWAYS, IDLE, broken, unwitnessed
from support.polling import until
from support.storm_customers import open_accounts
from support.storm_site import Site, site
from support.traffic import MODEL, Outcome, chat, chat_body

from controlplane.db import open_engine, session_factory
from controlplane.pricing import book

STREAMS = 6
CLIENTS = 8
PATIENCE_SECONDS = 1  # of a gateway with its database
# An answer may come behind a look-up, a batch of others and its own batch; the machine is shared.
REFUSED_WITHIN_SECONDS = 30
MORE_BYTES = 2**20  # of journal; a refused request writes none
MORE_MEMORY_BYTES = 64 * 2**20
MORE_FILES = 64
QUIET_SECONDS = 90


@dataclass
class Refusal:
    """What a client was told that came while PostgreSQL was gone."""

    status: int
    code: str
    retry_after: str | None
    seconds: float


class Outage:
    """Customers of a site whose PostgreSQL goes away."""

    def __init__(self, it: Site, token: str) -> None:
        self.site = it
        self.urls = list(it.gateway_urls.values())
        self.seen: list[Outcome] = []
        self.refusals: list[Refusal] = []
        self._headers = {"authorization": f"Bearer {token}"}
        self._rng = random.Random(5)

    async def blow(self, how: str, seconds: float) -> None:
        """Take PostgreSQL away under streams, and bring it back after `seconds` or later."""
        postgres = self.site.pieces["postgres"]
        began = asyncio.get_running_loop().time()
        async with httpx.AsyncClient(timeout=120, headers=self._headers) as http:
            streams = await self._start_streams(http)
            before = self.resources()
            if how == "freeze":
                postgres.freeze()
            else:
                await asyncio.to_thread(postgres.kill)
            stop = asyncio.Event()
            clients = [asyncio.create_task(self._insist(http, stop)) for _ in range(CLIENTS)]
            told = len(self.refusals)
            try:
                self._hold_against(await asyncio.gather(*streams))
                while (
                    asyncio.get_running_loop().time() < began + seconds
                    or len(self.refusals) < told + CLIENTS
                ):
                    await asyncio.sleep(0.05)
                stop.set()
                await asyncio.gather(*clients)
                self._nothing_piled_up(before)
            finally:
                stop.set()
                if how == "freeze":
                    postgres.thaw()
                else:
                    postgres.start()

    async def _start_streams(self, http: httpx.AsyncClient) -> list[asyncio.Task[Outcome]]:
        """Start streams, and wait until each flows."""
        flowing = [asyncio.Event() for _ in range(STREAMS)]
        tasks = [
            asyncio.create_task(
                chat(
                    http,
                    f"{self.urls[number % len(self.urls)]}/v1/chat/completions",
                    chat_body(self._rng, stream=True, max_tokens=150),
                    on_delta=event.set,
                )
            )
            for number, event in enumerate(flowing)
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*(event.wait() for event in flowing))
        assert not any(task.done() for task in tasks)
        return tasks

    def _hold_against(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            assert (outcome.status, outcome.finished, outcome.fault) == (200, True, None), outcome
        self.seen += outcomes

    async def _insist(self, http: httpx.AsyncClient, stop: asyncio.Event) -> None:
        """Ask again and again, sooner than told to."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            asked_at = loop.time()
            answer = await http.post(
                f"{self._rng.choice(self.urls)}/v1/chat/completions",
                json=chat_body(self._rng, stream=False, max_tokens=8),
            )
            self.refusals.append(
                Refusal(
                    answer.status_code,
                    answer.json().get("error", {}).get("code", ""),
                    answer.headers.get("retry-after"),
                    loop.time() - asked_at,
                )
            )
            await asyncio.sleep(0.2)

    def resources(self) -> dict[str, tuple[int, int, int]]:
        """Bytes of journal, bytes of memory and open files of each gateway."""
        found = {}
        for name in self.site.gateway_urls:
            process = psutil.Process(self.site.pieces[name].pid)
            folder = self.site.journal(name)
            journal = sum(it.stat().st_size for it in folder.rglob("*") if it.is_file())
            found[name] = (journal, process.memory_info().rss, process.num_fds())
        return found

    def _nothing_piled_up(self, before: dict[str, tuple[int, int, int]]) -> None:
        after = self.resources()
        print(before, after, len(self.refusals))  # noqa: T201
        for name, limits in before.items():
            more = [now - then for now, then in zip(after[name], limits, strict=True)]
            assert more[0] < MORE_BYTES, after
            assert more[1] < MORE_MEMORY_BYTES, after
            assert more[2] < MORE_FILES, after

    def is_open(self) -> bool:
        """Whether every gateway serves again."""
        body = chat_body(self._rng, stream=False, max_tokens=4)
        for url in self.urls:
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                json=body,
                headers=self._headers,
                timeout=60,
                trust_env=False,
            )
            if answer.status_code != 200:
                return False
        return True

    def is_exact(self) -> bool:
        """Whether everything is settled, nothing held."""
        try:
            return not violations(self.site.database_url)
        except psycopg.OperationalError:
            return False


def customer(it: Site) -> str:
    """Publish a price; return the key of somebody rich."""
    engine = open_engine(it.database_url)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        book.publish(session, model=MODEL, hit_rate_p=1000, miss_rate_p=2000, output_rate_p=3000)
    token = open_accounts(sessions)["rich"]
    engine.dispose()
    return token


@pytest.mark.timeout(300)
async def test_an_outage_of_postgresql_ends_no_stream_and_bills_every_one(tmp_path: Path) -> None:
    with short_tempered(tmp_path, gateways=1) as it:
        await assert_exact_after(it, seconds=3)


@pytest.mark.storm
@pytest.mark.timeout(24 * 3600)
async def test_a_long_outage_of_postgresql_ends_no_stream_and_bills_every_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with short_tempered(tmp_path, gateways=2) as it:
        await assert_exact_after(it, seconds=request.config.getoption("--storm-seconds"))


def short_tempered(folder: Path, *, gateways: int) -> AbstractContextManager[Site]:
    """A site whose gateways wait for PostgreSQL for a shorter time than usual."""
    return site(
        folder,
        gateways=gateways,
        workers=1,
        FLASHPLANE_DATABASE_TIMEOUT_SECONDS=str(PATIENCE_SECONDS),
    )


async def assert_exact_after(it: Site, *, seconds: float) -> None:
    """Take PostgreSQL away in both ways; hold everything against what is left."""
    outage = Outage(it, customer(it))
    await asyncio.to_thread(until, outage.is_open, seconds=QUIET_SECONDS, what="an answer")
    for how in ("freeze", "kill"):
        await outage.blow(how, seconds)
        await asyncio.to_thread(until, outage.is_open, seconds=QUIET_SECONDS, what="an answer")
        await asyncio.to_thread(until, outage.is_exact, seconds=QUIET_SECONDS, what="exact books")
        assert broken(it.database_url, ALWAYS | IDLE) == []
    for refusal in outage.refusals:
        assert (refusal.status, refusal.code) == (503, "database_unavailable"), refusal
        assert int(refusal.retry_after or 0) > 0, refusal
        assert refusal.seconds < REFUSED_WITHIN_SECONDS, refusal
    with psycopg.connect(it.database_url) as connection:
        bills = dict(connection.execute("SELECT request_id::text, output_tokens FROM usage_events"))
    for outcome in outage.seen:
        assert bills[outcome.request_id] == outcome.output_tokens, outcome
    it.pieces["worker-0"].kill()
    assert unwitnessed(it.database_url, [it.witness("worker-0")]) == []
