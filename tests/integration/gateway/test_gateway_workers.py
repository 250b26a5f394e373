"""Real workers behind the gateway: one is killed, and what its clients get is as if it lived."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from support.gateway import MODEL, World, make_world, running_gateway
from support.ports import free_port

WORKER = (sys.executable, "-c", "from worker.cli import app; app()")
TOKENS = 64
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "seeded": {"seed": 7},
    "without thinking": {"seed": 8, "thinking": {"type": "disabled"}},
    "with log-probabilities": {"seed": 9, "logprobs": True, "top_logprobs": 2},
    "a list of words": {
        "temperature": 0,
        "thinking": {"type": "disabled"},
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "words",
                "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1000},
            },
        },
    },
    "a tool call": {
        "temperature": 0,
        "thinking": {"type": "disabled"},
        "tool_choice": {"type": "function", "function": {"name": "say"}},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "say",
                    "strict": True,
                    "parameters": {
                        "type": "object",
                        "properties": {"words": {"type": "string"}},
                        "required": ["words"],
                        "additionalProperties": False,
                    },
                },
            }
        ],
    },
}


@dataclass
class Worker:
    """A worker process and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def is_healthy(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """Two workers of one tiny model, being started."""
    folder = tmp_path_factory.mktemp("workers")
    subprocess.run([*WORKER, "model", "tiny", str(folder / "model")], check=True)
    started = []
    for number in range(2):
        port = free_port()
        options = ("--port", str(port), "--threads", "1", "--log-file", str(folder / f"{number}"))
        argv = [*WORKER, "serve", str(folder / "model"), *options]
        started.append(Worker(subprocess.Popen(argv), f"http://127.0.0.1:{port}"))
    try:
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
async def fleet(
    database_url: str, redis_url: str, tmp_path: Path, workers: list[Worker]
) -> AsyncIterator[World]:
    """A gateway in front of both workers, which are ready."""
    async with asyncio.timeout(60):
        while not all(worker.is_healthy() for worker in workers):
            await asyncio.sleep(0.1)
    with make_world(database_url, redis_url, tmp_path / "journal") as world:
        for number, worker in enumerate(workers):
            world.publish(worker.url, name=f"w{number}", max_model_len=2048)
        async with running_gateway(world):
            yield world


def body(name: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Hello, {name}"}]
    return {"model": MODEL, "messages": messages, "max_tokens": TOKENS} | REQUESTS[name]


def merged(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A streamed answer as a whole one says it, without the random ids of tool calls."""
    whole: dict[str, Any] = {}
    listed: list[str] = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for call in delta.pop("tool_calls", []):
                for part, text in call["function"].items():
                    whole[part] = whole.get(part, "") + text
            for field, text in delta.items():
                whole[field] = whole.get(field, "") + (text or "")
            for entries in (choice["logprobs"] or {}).values():
                listed += [entry["token"] for entry in entries or []]
            whole["finish_reason"] = choice["finish_reason"]
    return whole | {"tokens with log-probabilities": listed}


async def stream(
    http: httpx.AsyncClient, url: str, name: str, flowing: asyncio.Semaphore | None = None
) -> list[dict[str, Any]]:
    """Every chunk of a streamed answer; `flowing` is released by the sixteenth."""
    chunks: list[dict[str, Any]] = []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    path = "/v1/chat/completions"
    async with http.stream("POST", f"{url}{path}", json=body(name) | options) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return chunks
            if line.startswith("data: "):
                chunks.append(json.loads(line.removeprefix("data: ")))
                assert "error" not in chunks[-1], chunks[-1]
                if flowing is not None and len(chunks) == 16:
                    flowing.release()
    raise AssertionError("the stream has no end")


def resumed() -> float:
    labels = {"outcome": "resumed"}
    return REGISTRY.get_sample_value("flashplane_gateway_resumptions_total", labels) or 0.0


async def test_a_killed_worker_is_not_noticed(fleet: World, workers: list[Worker]) -> None:
    before = resumed()
    headers = {"authorization": f"Bearer {fleet.tenant()}"}
    async with httpx.AsyncClient(timeout=60, headers=headers) as http:
        flowing = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(http, fleet.url, name, flowing)) for name in REQUESTS]
        async with asyncio.timeout(60):
            for _ in REQUESTS:
                await flowing.acquire()
        workers[0].process.kill()
        answers = await asyncio.gather(*streams)
        alone = [await stream(http, workers[1].url, name) for name in REQUESTS]
    assert before < resumed() <= before + 3, "half of the requests were with each worker"
    for name, answer, expected in zip(REQUESTS, answers, alone, strict=True):
        assert merged(answer) == merged(expected), name
        assert answer[-1]["usage"]["completion_tokens"] == TOKENS, name
        assert len({(chunk["id"], chunk["created"]) for chunk in answer}) == 1, name
    rows = await fleet.settled(len(REQUESTS))
    told = [answer[-1]["usage"] for answer in answers]
    assert sorted((row.hit_tokens + row.miss_tokens, row.output_tokens) for row in rows) == sorted(
        (usage["prompt_tokens"], usage["completion_tokens"]) for usage in told
    )
