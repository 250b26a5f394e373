"""kill -9 of any process while streams run: the product comes back and the books are exact."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from support.books import violations
from support.polling import until
from support.product import Product, product
from support.traffic import Outcome, chat, chat_body

STREAMS = 6
CHILDREN = ["worker", "gateway", "postgres", "valkey", "jobs", "beat", "api", "operator"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product that survives test after test."""
    with product(tmp_path_factory.mktemp("target")) as it:
        it.up()
        yield it


async def kill_while_streaming(up: dict[str, Any], *pids: int, seed: int) -> list[Outcome]:
    """Start streams, kill `pids` once they all flow, return what clients saw."""
    rng = random.Random(seed)
    url = f"{up['base_url']}/chat/completions"
    headers = {"authorization": f"Bearer {up['api_key']}"}
    flowing = asyncio.Event()
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen >= STREAMS * 4:
            flowing.set()

    async with httpx.AsyncClient(timeout=60, headers=headers) as http:
        tasks = [
            asyncio.create_task(
                chat(http, url, chat_body(rng, stream=True, max_tokens=200), on_delta=count)
            )
            for _ in range(STREAMS)
        ]
        await asyncio.wait_for(flowing.wait(), 60)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return list(await asyncio.gather(*tasks))


def answers(up: dict[str, Any]) -> bool:
    try:
        response = httpx.post(
            f"{up['base_url']}/chat/completions",
            json=chat_body(random.Random(), stream=False, max_tokens=2),
            headers={"authorization": f"Bearer {up['api_key']}"},
            timeout=30,
        )
    except httpx.HTTPError:
        return False
    return response.status_code == 200


def exact(up: dict[str, Any]) -> bool:
    try:
        return not violations(up["database_url"])
    except psycopg.OperationalError:
        return False


def billed(up: dict[str, Any], outcome: Outcome) -> tuple[int, str]:
    """The output tokens that a request was billed for, and how it ended."""
    with psycopg.connect(up["database_url"]) as connection:
        row = connection.execute(
            "SELECT output_tokens, finish_reason FROM usage_events WHERE request_id = %s",
            (outcome.request_id,),
        ).fetchone()
    assert row is not None, outcome
    return row


def assert_billed_what_was_seen(up: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Nobody got more than was billed: each delta but role and usage carries at least a token."""
    for outcome in outcomes:
        output_tokens, _ = billed(up, outcome)
        assert output_tokens >= outcome.deltas - 3, (output_tokens, outcome)


def new_seed() -> int:
    """A fresh seed, told by whatever fails."""
    return random.SystemRandom().randrange(2**32)


async def assert_comes_back_exact(target: Product, *victims: str, seed: int) -> list[Outcome]:
    up = target.announced()
    pids = [up["pids"][victim] for victim in victims]
    outcomes = await kill_while_streaming(up, *pids, seed=seed)
    until(lambda: answers(up), seconds=60, what=f"answers again, seed {seed}")
    until(lambda: exact(up), seconds=15, what=f"exact books, seed {seed}")
    assert_billed_what_was_seen(up, outcomes)
    return outcomes


@pytest.mark.parametrize("victim", [child for child in CHILDREN if child != "worker"])
async def test_a_killed_child_is_restarted_and_the_books_are_exact(
    target: Product, victim: str
) -> None:
    await assert_comes_back_exact(target, victim, seed=new_seed())


async def test_streams_outlive_their_worker(target: Product) -> None:
    seed = new_seed()
    outcomes = await assert_comes_back_exact(target, "worker", seed=seed)
    for outcome in outcomes:
        assert outcome.finished, (seed, outcome)
        output_tokens, finish_reason = billed(target.announced(), outcome)
        assert output_tokens == outcome.output_tokens, (seed, outcome)
        assert finish_reason in ("length", "stop"), (seed, outcome)
        url = f"{target.announced()['worker_url']}/usage/{outcome.request_id}"
        first, *_, last = httpx.get(url).json()["attempts"]
        assert first["finish_reason"] == "interrupted", (seed, outcome)
        assert last["completion_tokens"] == output_tokens, (seed, outcome)


async def test_a_worker_and_the_gateway_that_would_go_on_without_it(target: Product) -> None:
    await assert_comes_back_exact(target, "worker", "gateway", seed=new_seed())


async def test_the_next_up_cleans_up_after_a_killed_supervisor(target: Product) -> None:
    up, seed = target.announced(), new_seed()
    outcomes = await kill_while_streaming(up, up["pids"]["supervisor"], seed=seed)
    again = target.up()
    assert again["pids"]["supervisor"] != up["pids"]["supervisor"]
    until(lambda: exact(again), seconds=15, what=f"exact books, seed {seed}")
    assert_billed_what_was_seen(again, outcomes)


async def test_everything_killed_at_once(target: Product) -> None:
    up, seed = target.announced(), new_seed()
    pids = dict(up["pids"])
    os.kill(pids["supervisor"], signal.SIGSTOP)  # or it would mend what is killed one by one
    outcomes = await kill_while_streaming(up, pids.pop("gateway"), seed=seed)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    again = target.up()
    until(lambda: exact(again), seconds=15, what=f"exact books, seed {seed}")
    assert_billed_what_was_seen(again, outcomes)


def test_after_all_that_bills_and_engines_tell_of_the_same_tokens(target: Product) -> None:
    up = target.announced()
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    report: dict[str, Any] = {}

    def is_done() -> bool:
        report.update(httpx.get(f"{up['admin_url']}/admin/v1/reconcile", headers=headers).json())
        return bool(report["requests"] and not report["waiting"])

    until(is_done, seconds=30, what="bills and journals to be held against each other")
    assert report["ok"], report


@pytest.mark.storm
@pytest.mark.timeout(1800)
async def test_forty_random_kills_in_a_row(target: Product) -> None:
    seed = new_seed()
    rng = random.Random(seed)
    for _ in range(40):
        await assert_comes_back_exact(target, rng.choice(CHILDREN), seed=rng.randrange(2**32))
