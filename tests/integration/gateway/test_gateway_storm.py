"""A hundred clients at once, a third of whom leave: exact books, and every bill what was sent."""

import asyncio
import random
import uuid
from dataclasses import dataclass

import httpx
from support.engine import Engine, Plan
from support.gateway import MODEL, World

REQUESTS = 100


@dataclass
class Seen:
    """What a client saw of its request."""

    request_id: uuid.UUID
    words: int = 0
    ended: bool = False


async def one_client(world: World, http: httpx.AsyncClient, key: str, seed: int) -> Seen:
    """Run a request; one in three leaves after a few words, or at a random moment."""
    rng = random.Random(seed)
    leaves_after = rng.randint(0, 10) if rng.random() < 0.33 else None
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x" * rng.randint(1, 2000)}],
        "max_tokens": rng.randint(12, 30),
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    url = f"{world.url}/v1/chat/completions"
    async with http.stream("POST", url, json=body, headers=headers) as response:
        assert response.status_code == 200
        seen = Seen(uuid.UUID(response.headers["x-request-id"]))
        async for line in response.aiter_lines():
            seen.words += '"content": "x"' in line
            seen.ended = seen.ended or line == "data: [DONE]"
            if leaves_after is not None and seen.words >= leaves_after:
                return seen
    return seen


async def test_a_storm_leaves_exact_books(world: World, engine: Engine) -> None:
    engine.plan = Plan(words=["x"] * 30, prompt_tokens=40, hit_tokens=10, pace_seconds=0.01)
    keys = [world.tenant("1.00") for _ in range(5)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=30) as http:
        clients = [one_client(world, http, keys[i % 5], i) for i in range(REQUESTS)]
        everything = await asyncio.gather(*clients)
    await engine.until(lambda: engine.running == 0)
    rows = {row.request_id: row for row in await world.settled(REQUESTS)}
    for seen in everything:
        row = rows[seen.request_id]
        assert row.finish_reason == ("stop" if seen.ended else "aborted")
        assert row.output_tokens >= seen.words
        assert row.output_tokens == seen.words or not seen.ended
    assert engine.aborted == sum(not seen.ended for seen in everything) > 0


async def test_one_account_is_never_overspent(world: World, engine: Engine) -> None:
    # A request holds about 0.00035 USD: 1,000 output tokens and the guessed prompt.
    engine.plan = Plan(stall_after_chunks=2)
    key = world.tenant("0.0012")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}
    async with world.http(key) as http:
        calls = [asyncio.create_task(http.post("/chat/completions", json=body)) for _ in range(10)]
        refused: list[int] = []
        while len(refused) < 7:
            done, _ = await asyncio.wait(calls, timeout=0.05)
            refused = [call.result().status_code for call in done]
        assert refused == [402] * 7
        await engine.until(lambda: engine.running == 3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await world.settled(3)
