"""Streams that must not be lost: many clients, one stream after the other, each read to its end."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Streamed:
    """What one client saw of one stream."""

    tokens: int = 0
    keep_alives: int = 0
    done: bool = False
    error: Any = None


def customer(url: str, key: str) -> httpx.Client:
    """Return a client of a gateway."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=240, trust_env=False)


def stream(
    http: httpx.Client, model: str, tokens: int, begun: threading.Event | None = None
) -> Streamed:
    """Read a whole stream; sets `begun` at its first token."""
    body = {
        "model": model,
        "prompt": "One, two,",
        "max_tokens": tokens,
        "temperature": 1,
        "logit_bias": {"1": -100},  # its words are random: it must not say that it is done
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    seen = Streamed()
    with http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            seen.error = (response.status_code, response.read().decode())
            return seen
        for line in response.iter_lines():
            if line == "data: [DONE]":
                seen.done = True
            elif line.startswith(":"):
                seen.keep_alives += 1
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                seen.error = seen.error or chunk.get("error")
                seen.tokens = (chunk.get("usage") or {}).get("completion_tokens", seen.tokens)
                if begun is not None:
                    begun.set()
    return seen


@dataclass
class Traffic:
    """Clients at work; see `traffic`."""

    tokens: int
    begun: list[threading.Event]
    streams: list[Streamed] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def lost(self) -> list[Streamed]:
        """Streams that ended other than they should have; ask once all have ended."""
        return [it for it in self.streams if (it.done, it.tokens) != (True, self.tokens)]


@contextmanager
def traffic(url: str, key: str, model: str, *, clients: int, tokens: int) -> Iterator[Traffic]:
    """Stream without pause while inside; outside, every stream has ended."""
    running = Traffic(tokens, [threading.Event() for _ in range(clients)])

    def client(begun: threading.Event) -> None:
        with customer(url, key) as http:
            while not running.stopping.is_set():
                running.streams.append(stream(http, model, tokens, begun))

    with ThreadPoolExecutor(clients) as pool:
        ends: list[Future[None]] = [pool.submit(client, it) for it in running.begun]
        try:
            for event in running.begun:
                assert event.wait(120), "no stream began"
            yield running
        finally:
            running.stopping.set()
    for end in ends:
        end.result()
