"""Several choices of one request."""

from typing import Any

import httpx
import pytest
from support.structured import ASK, NO_THINKING, SCHEMAS, assert_valid, json_schema
from support.wire import chunks

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MODEL = "deepseek-v4-flash"
LONG = list(range(1000, 1600))
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}], **NO_THINKING},
    COMPLETIONS: {"prompt": LONG},
}


def body(path: str, **fields: Any) -> dict[str, Any]:
    seeded = {"model": MODEL, "max_tokens": 6, "temperature": 1, "seed": 4}
    return {**seeded, **BODIES[path], **fields}


def said(choice: dict[str, Any]) -> Any:
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("path", BODIES)
def test_choices_differ_and_the_first_is_that_of_one(http: httpx.Client, path: str) -> None:
    alone = http.post(path, json=body(path)).json()
    three = http.post(path, json=body(path, n=3)).json()
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["choices"][0] == alone["choices"][0]
    assert len({said(choice) for choice in three["choices"]}) == 3
    assert http.post(path, json=body(path, n=3)).json()["choices"] == three["choices"]


@pytest.mark.parametrize("path", BODIES)
def test_streamed_choices_are_the_whole_ones(http: httpx.Client, path: str) -> None:
    whole = http.post(path, json=body(path, n=3)).json()
    told = chunks(http, path, body(path, n=3, stream_options={"include_usage": True}))
    texts, ends = ["", "", ""], [None, None, None]
    for chunk in told[:-1]:
        (choice,) = chunk["choices"]
        delta = choice.get("delta", {"content": choice.get("text")})
        texts[choice["index"]] += delta.get("content") or ""
        ends[choice["index"]] = choice["finish_reason"]
    assert texts == [said(choice) for choice in whole["choices"]]
    assert ends == [choice["finish_reason"] for choice in whole["choices"]]
    assert told[-1]["choices"] == []
    totals = [chunk["usage"]["completion_tokens"] for chunk in told]
    assert totals == sorted(totals)
    assert totals[-1] == whole["usage"]["completion_tokens"]


def test_the_prompt_is_counted_and_computed_once(http: httpx.Client) -> None:
    def computed() -> float:
        lines = http.get("/metrics").text.splitlines()
        (line,) = [x for x in lines if x.startswith("vllm:engine_step_tokens_total{")]
        return float(line.rsplit(" ", 1)[1])

    before = computed()
    fields = {"n": 4, "cache_salt": "once", "ignore_eos": True, "max_tokens": 3}
    usage = http.post(COMPLETIONS, json=body(COMPLETIONS, **fields)).json()["usage"]
    assert usage["prompt_tokens"] == usage["prompt_cache_miss_tokens"] == 600
    assert usage["completion_tokens"] == 12
    page_end = 600 - 512  # what lies beyond the last full page, each computes for itself
    assert computed() - before <= 600 + 3 * page_end + 12


def test_every_choice_has_a_grammar_of_its_own(http: httpx.Client) -> None:
    fields = {"response_format": json_schema(SCHEMAS["choice"]), "messages": ASK}
    document = http.post(CHAT, json=body(CHAT, n=4, max_tokens=100, **fields)).json()
    for choice in document["choices"]:
        assert choice["finish_reason"] == "stop"
        assert_valid(httpx.Response(200, text=said(choice)).json(), SCHEMAS["choice"])


def test_a_choice_that_stops_lets_the_others_go_on(http: httpx.Client) -> None:
    fields = {"n": 3, "ignore_eos": True, "max_tokens": 20}
    texts = [
        said(c) for c in http.post(COMPLETIONS, json=body(COMPLETIONS, **fields)).json()["choices"]
    ]
    stop = texts[0][3:6]
    stopped = http.post(COMPLETIONS, json=body(COMPLETIONS, stop=stop, **fields)).json()["choices"]
    assert stopped[0]["finish_reason"] == "stop"
    assert [said(c) for c in stopped] == [t.partition(stop)[0] for t in texts]


def test_more_choices_than_there_is_room_for_are_refused_at_once(base_url: str) -> None:
    crowd = body(COMPLETIONS, n=16, max_tokens=7000, ignore_eos=True, stream=True)
    with (
        httpx.Client(base_url=base_url, timeout=60) as client,
        client.stream("POST", COMPLETIONS, json=crowd) as running,
    ):
        lines = running.iter_lines()
        next(lines)
        response = client.post(COMPLETIONS, json=body(COMPLETIONS, n=9))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
