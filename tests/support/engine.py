"""A scriptable engine that speaks the wire over real HTTP: third-party engines, and their faults.

It runs on the test's event loop. A test sets `plan` (or `plans`, one a request) and afterwards
looks at `requests`, `aborted` and `running`.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Chunk = dict[str, Any]


@dataclass
class Plan:
    """How one request is answered."""

    words: list[str] = field(default_factory=lambda: ["Hello", " world", "!"])
    reasoning: list[str] = field(default_factory=list)
    prompt_tokens: int = 10
    hit_tokens: int = 0
    finish_reason: str | None = "stop"
    extra_chunks: list[Chunk] = field(default_factory=list)  # deltas between words and finish
    usage_of: Callable[[int], dict[str, Any] | None] | None = None  # by output tokens so far
    usage_chunk: bool = True  # the closing chunk with `choices: []`
    done: bool = True
    pace_seconds: float = 0.0
    status: int = 200
    error: dict[str, Any] | None = None
    true_prompt_tokens: int | None = None  # refuse with 409 while `max_prompt_tokens` is below
    die_before_first_byte: bool = False
    says_nothing: bool = False  # not even the head of its answer
    die_after_chunks: int | None = None
    stall_after_chunks: int | None = None
    event_error_after_chunks: int | None = None
    event_error_code: str = "x"
    end_after_chunks: int | None = None  # the body ends as if that were all
    torn: bool = False  # dies in the middle of its last event
    token_ids: bool = False  # tells them when asked, and goes on from them, as our worker does
    resumes: bool = True  # whether it goes on where `resume_token_ids` ends
    says_role_again: bool = False
    comments: bool = False
    garbage: bytes | None = None


def usage(prompt: int, hit: int, output: int, reasoning: int = 0) -> dict[str, Any]:
    """Usage as our worker writes it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_cache_hit_tokens": hit,
        "prompt_cache_miss_tokens": prompt - hit,
        "prompt_tokens_details": {"cached_tokens": hit},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


class Engine:
    """One engine on a loopback port."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.plans: list[Plan] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections = 0
        self.running = 0
        self.aborted = 0
        self.changed = asyncio.Condition()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Stop listening and reset every connection."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        """Wait for a condition on this engine's counters."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.paths.append(head[0].split(" ")[1])
        self.requests.append(body)
        self.headers.append(headers)
        plan = self.plans.pop(0) if self.plans else self.plan
        if plan.die_before_first_byte:
            return False
        if plan.garbage is not None:
            writer.write(plan.garbage)
            await writer.drain()
            return False
        refusal = self._refusal(plan, body)
        if refusal is not None:
            await _send_json(writer, *refusal)
            return True
        return await self._generate(plan, body, reader, writer)

    def _refusal(self, plan: Plan, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        count = plan.true_prompt_tokens
        if count is not None and body["max_prompt_tokens"] < count:
            return 409, {
                "error": {
                    "message": "longer than max_prompt_tokens",
                    "type": "invalid_request_error",
                    "param": "messages",
                    "code": "prompt_exceeds_limit",
                    "prompt_tokens": count,
                }
            }
        return (plan.status, plan.error or {}) if plan.status != 200 else None

    async def _generate(
        self,
        plan: Plan,
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Stream an answer while watching for the caller to hang up."""
        self.running += 1
        async with self.changed:
            self.changed.notify_all()
        streaming = asyncio.create_task(_stream(plan, body, writer))
        hanging_up = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({streaming, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
            if not streaming.done() or isinstance(streaming.exception(), ConnectionError):
                self.aborted += 1
                streaming.cancel()
                return False
            return streaming.result()
        finally:
            hanging_up.cancel()
            await asyncio.gather(streaming, hanging_up, return_exceptions=True)
            self.running -= 1
            async with self.changed:
                self.changed.notify_all()


async def _stream(plan: Plan, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
    if plan.says_nothing:
        await asyncio.Event().wait()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for number, chunk in enumerate(chunks(plan, body)):
        if plan.die_after_chunks == number:
            if plan.torn:
                _write_chunk(writer, f"data: {json.dumps(chunk)}"[:-20])
                await writer.drain()
            return False
        if plan.end_after_chunks == number:
            writer.write(b"0\r\n\r\n")
            return True
        if plan.stall_after_chunks == number:
            await asyncio.Event().wait()
        if plan.event_error_after_chunks == number:
            code = plan.event_error_code
            error = {"message": "oh no", "type": "server_error", "param": None, "code": code}
            _write_chunk(writer, f"data: {json.dumps({'error': error})}\n\n")
            writer.write(b"0\r\n\r\n")
            return True
        if plan.comments:
            _write_chunk(writer, ": keep-alive\n\n")
        _write_chunk(writer, f"data: {json.dumps(chunk)}\n\n")
        await writer.drain()
        await asyncio.sleep(plan.pace_seconds)
    if plan.done:
        _write_chunk(writer, "data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _write_chunk(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def chunks(plan: Plan, body: dict[str, Any]) -> list[Chunk]:
    """Every chunk of an answer, cumulative usage on each."""
    is_text = "prompt" in body  # a plain completion: no role, no reasoning
    given = _given(plan, body)
    deltas, tokens = _deltas(plan, body, given, has_role=not is_text)
    head = {
        "id": f"cmpl-{random.getrandbits(64):x}",
        "object": "text_completion" if is_text else "chat.completion.chunk",
        "created": random.getrandbits(31),
        "model": body["model"],
    }

    def chunk(choices: list[dict[str, Any]], output: int) -> Chunk:
        told: dict[str, Any] | None
        told = usage(plan.prompt_tokens, plan.hit_tokens, output, min(output, len(plan.reasoning)))
        if given:
            told |= {"resumed_tokens": given, "recomputed_tokens": given}
        if plan.usage_of is not None:
            told = plan.usage_of(output)
        return {**head, "choices": choices, "usage": told}

    def choice(delta: dict[str, Any], reason: str | None, ids: list[int]) -> dict[str, Any]:
        said = {"text": delta.get("content", "")} if is_text else {"delta": delta}
        told = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        if plan.token_ids and body.get("return_token_ids"):
            told["token_ids"] = ids
        return told

    result = [
        chunk([choice(delta, None, [token_id(output)] if is_token else [])], output)
        for delta, output, is_token in deltas
    ]
    if plan.finish_reason is not None:
        result.append(chunk([choice({}, plan.finish_reason, [])], tokens))
    if plan.usage_chunk:
        result.append(chunk([], tokens))
    return result


def _deltas(
    plan: Plan, body: dict[str, Any], given: int, *, has_role: bool
) -> tuple[list[tuple[dict[str, Any], int, bool]], int]:
    """What is left to say after `given` tokens: (delta, output tokens up to it, whether it is a
    token); and the tokens of the whole answer."""
    limit = body["max_tokens"]
    opening: dict[str, Any] = {"role": "assistant", "content": ""}
    said = [{"reasoning_content": word} for word in plan.reasoning]
    said = [*said, *({"content": word} for word in plan.words)][:limit]
    deltas = [(delta, number, True) for number, delta in enumerate(said, 1)][given:]
    deltas += [(delta, len(said), False) for delta in plan.extra_chunks]
    goes_on = plan.token_ids and plan.resumes and "resume_token_ids" in body
    if has_role and (not goes_on or plan.says_role_again):
        deltas.insert(0, (opening, given, False))
    return deltas, len(said)


def token_id(number: int) -> int:
    """The id of an answer's token by its number, from 1 on."""
    return 100_000 + number


def _given(plan: Plan, body: dict[str, Any]) -> int:
    """How many tokens of the answer another engine has generated."""
    ids = body.get("resume_token_ids", []) if plan.token_ids and plan.resumes else []
    assert ids == [token_id(number) for number in range(1, len(ids) + 1)], ids
    return len(ids)


async def _send_json(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    writer.write(
        b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(data), data)
    )
    await writer.drain()


@asynccontextmanager
async def running_engine(port: int = 0) -> AsyncIterator[Engine]:
    """An engine that listens."""
    engine = Engine()
    await engine.start(port)
    try:
        yield engine
    finally:
        await engine.stop()
