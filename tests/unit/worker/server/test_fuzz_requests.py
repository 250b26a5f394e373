"""Requests of valid and of mutated fields, any number of them at once: each is answered or refused
in OpenAI's shape, and the engine has nothing left of it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.polling import until
from support.scripted_engine import MODEL, Script, make_scheduler, scripted
from support.structured import SCHEMAS, closed, json_schema, tool
from support.worker_server import served

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.scheduler import Scheduler

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENS = st.lists(st.integers(0, 129_279), max_size=6)
TEXT = st.sampled_from(["", "Hi", "</think>", "json 🎉", "a" * 300])
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 9),
    "max_prompt_tokens": st.sampled_from([1, 5000]),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.1, 1),
    "top_k": st.integers(-1, 9),
    "min_p": st.floats(0, 1),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "logit_bias": st.dictionaries(st.integers(0, 129_279).map(str), st.floats(-100, 100)),
    "stop": TEXT | st.lists(TEXT.filter(bool), max_size=3),
    "stop_token_ids": TOKENS,
    "ignore_eos": st.booleans(),
    "n": st.integers(1, 4),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "resume_token_ids": TOKENS,
    "return_token_ids": st.booleans(),
    "cache_salt": TEXT,
    "priority": st.integers(-3, 3),
    "fairness_key": TEXT,
    "deadline_seconds": st.sampled_from([0.001, 30.0]),
}
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant"]),
            "content": TEXT,
        }
    ),
    max_size=3,
).map(lambda turns: [*turns, {"role": "user", "content": "json"}])
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    CHAT: {
        **COMMON,
        "max_completion_tokens": st.integers(1, 9),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 20),
        "thinking": st.sampled_from([{"type": "enabled"}, {"type": "disabled"}]),
        "reasoning_effort": st.sampled_from(["none", "low", "high", "max", "odd"]),
        "response_format": st.sampled_from(
            [{"type": "text"}, {"type": "json_object"}, json_schema(SCHEMAS["choice"])]
        ),
        "tools": st.just([tool("f", closed({"x": {"type": "integer"}}))]),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "parallel_tool_calls": st.booleans(),
    },
    COMPLETIONS: {
        **COMMON,
        "echo": st.booleans(),
        "logprobs": st.integers(0, 20),
        "suffix": TEXT,
        "return_tokens_as_token_ids": st.booleans(),
    },
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A route and a body: some fields as they should be, now and then one that is anything."""
    path = draw(st.sampled_from([CHAT, COMPLETIONS]))
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 4}
    if path == CHAT:
        body["messages"] = draw(MESSAGES)
    else:
        body["prompt"] = draw(TEXT | TOKENS)
    fields = FIELDS[path]
    for name in draw(st.lists(st.sampled_from(list(fields)), max_size=6, unique=True)):
        body[name] = draw(fields[name])
    if "stream_options" in body:
        body["stream"] = True
    if draw(st.integers(0, 2)) == 0:
        body[draw(st.sampled_from(list(body)))] = draw(JSON)
    return path, body


@pytest.fixture(scope="module")
def scheduler() -> Scheduler:
    return make_scheduler()


@pytest.fixture(scope="module")
def http(
    scheduler: Scheduler, tokenizer: Tokenizer, chat_encoding: ChatEncoding
) -> Iterator[httpx.Client]:
    text = tokenizer.encode('hm 🎉 <tool> {"x": 1}\n\n')
    markup = [128822, 128825, 128821, 1]
    script = Script(prompt_tokens=0, token_ids=[*text, *markup] * 200)
    serving = scripted(script, tokenizer, chat_encoding, scheduler)
    with served(serving) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def assert_error(body: dict[str, Any]) -> None:
    assert {"message", "type", "param", "code"} <= body["error"].keys()
    assert body["error"]["code"] not in ("internal_error", "engine_failed")


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(request=requests())
def test_answered_or_refused(
    http: httpx.Client, scheduler: Scheduler, request: tuple[str, dict[str, Any]]
) -> None:
    path, body = request
    response = http.post(path, json=body)
    assert response.status_code in (200, 400, 404, 409, 422, 504), response.text
    if response.status_code != 200:
        assert_error(response.json())
    elif response.headers["content-type"].startswith("text/event-stream"):
        *_, last = [line for line in response.text.split("\n\n") if line.startswith("data: ")]
        if last != "data: [DONE]":
            assert_error(json.loads(last.removeprefix("data: ")))
    else:
        assert len(response.json()["choices"]) == (body.get("n") or 1)
    until(lambda: not (scheduler.running or scheduler.waiting), seconds=5, what="the engine idles")
    scheduler.check()
    assert scheduler.page_usage == 0
