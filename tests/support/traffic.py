"""Chat traffic from many clients at once, some of whom hang up."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

MODEL = "deepseek-v4-flash"


@dataclass
class Outcome:
    """What one client saw: enough to hold the bill against it."""

    request_id: str | None = None
    status: int | None = None
    deltas: int = 0
    finished: bool = False
    output_tokens: int | None = None  # as the answer's end tells
    fault: str | None = None


def chat_body(rng: random.Random, *, stream: bool, max_tokens: int) -> dict[str, Any]:
    """A small request nobody else has made."""
    words = " ".join(rng.choice(["red", "green", "blue", "one", "two"]) for _ in range(20))
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{rng.random()} {words}"}],
        "max_tokens": max_tokens,
        "stream": stream,
        "thinking": {"type": rng.choice(["enabled", "disabled"])},
    }


async def chat(
    http: httpx.AsyncClient,
    url: str,
    body: dict[str, Any],
    *,
    hang_up_after: int | None = None,
    on_delta: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run one request; leave after `hang_up_after` deltas of a stream if given. Never raises."""
    outcome = Outcome()
    try:
        async with http.stream("POST", url, json=body) as response:
            outcome.status = response.status_code
            outcome.request_id = response.headers.get("x-request-id")
            if not body["stream"]:
                await response.aread()
                outcome.finished = response.status_code == 200
                return outcome
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    outcome.finished = True
                elif line.startswith("data: "):
                    outcome.deltas += 1
                    usage = json.loads(line.removeprefix("data: ")).get("usage")
                    outcome.output_tokens = usage and usage["completion_tokens"]
                    on_delta()
                    if hang_up_after is not None and outcome.deltas >= hang_up_after:
                        return outcome
    except httpx.HTTPError as fault:
        outcome.fault = repr(fault)
    return outcome


async def storm(
    up: dict[str, Any], *, seed: int, requests: int, max_tokens: int = 24
) -> list[Outcome]:
    """Send `requests` at once: streams and not, a third of which hang up at a random moment."""
    rng = random.Random(seed)
    url = f"{up['base_url']}/chat/completions"
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {up['api_key']}"}
    async with httpx.AsyncClient(limits=limits, timeout=240, headers=headers) as http:

        async def one(stream: bool, leaves: bool, moment: float, deltas: int) -> Outcome:
            body = chat_body(rng, stream=stream, max_tokens=max_tokens)
            call = chat(http, url, body, hang_up_after=deltas if leaves and stream else None)
            if leaves and not stream:
                try:
                    return await asyncio.wait_for(call, moment)
                except TimeoutError:
                    return Outcome(fault="left")
            return await call

        return await asyncio.gather(
            *(
                one(rng.random() < 0.7, rng.random() < 0.33, rng.random() * 2, rng.randint(1, 12))
                for _ in range(requests)
            )
        )
