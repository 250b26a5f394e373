"""Priorities and deadlines as a caller meets them."""

import json
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MODEL = "deepseek-v4-flash"
ENDLESS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    COMPLETIONS: {"prompt": "Hi"},
}
for body in ENDLESS.values():
    body |= {"model": MODEL, "max_tokens": 8_000, "ignore_eos": True}
PLACES = 8  # max_sequences of the server under test


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_an_answer_past_its_deadline_is_a_504(http: httpx.Client, path: str) -> None:
    response = http.post(path, json=ENDLESS[path] | {"deadline_seconds": 0.3})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (504, "deadline_exceeded")
    assert error["param"] == "deadline_seconds"
    assert 0 < error["completion_tokens"] < 8_000


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_stream_past_its_deadline_ends_with_an_error_event(http: httpx.Client, path: str) -> None:
    body = ENDLESS[path] | {"deadline_seconds": 0.5, "stream": True}
    response = http.post(path, json=body)
    events = [x.removeprefix("data: ") for x in response.text.split("\n\n") if x.startswith("data")]
    *chunks, last = map(json.loads, events)
    assert response.status_code == 200
    assert last["error"]["code"] == "deadline_exceeded"
    assert last["error"]["completion_tokens"] == chunks[-1]["usage"]["completion_tokens"] > 0


def test_deadlines_are_counted_and_kept_apart(http: httpx.Client) -> None:
    http.post(COMPLETIONS, json=ENDLESS[COMPLETIONS] | {"deadline_seconds": 0.001})
    line = 'vllm:request_success_total{finished_reason="deadline",model_name="deepseek-v4-flash"}'
    assert line in http.get("/metrics").text


def test_an_urgent_request_does_not_wait_for_a_place(http: httpx.Client) -> None:
    slow = {"priority": 5, "fairness_key": "bulk", "stream": True}
    with ExitStack() as streams:
        bulk = [
            streams.enter_context(
                http.stream("POST", COMPLETIONS, json=ENDLESS[COMPLETIONS] | slow)
            )
            for _ in range(PLACES)
        ]
        lines = [response.iter_lines() for response in bulk]
        for first in map(next, lines):
            assert first
        urgent = {"model": MODEL, "prompt": "Now", "max_tokens": 2, "fairness_key": "vip"}
        assert http.post(COMPLETIONS, json=urgent).status_code == 200
        health = http.get("/health").json()
        assert health["running"] + health["waiting"] == PLACES


def test_null_means_absent(http: httpx.Client) -> None:
    fields = {"priority": None, "fairness_key": None, "deadline_seconds": None, "max_tokens": 1}
    assert http.post(COMPLETIONS, json=ENDLESS[COMPLETIONS] | fields).status_code == 200
