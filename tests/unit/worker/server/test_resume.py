"""A stream that breaks anywhere goes on elsewhere without a seam. Another `cache_salt` stands for
another worker: nothing of the first one's cache is found."""

import itertools
from typing import Any

import httpx
import pytest
from support.structured import ASK, NO_THINKING, SCHEMAS, json_schema
from support.wire import chunks, only, token_ids

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MODEL = "deepseek-v4-flash"
HELLO = [{"role": "user", "content": "Hello"}]
SALTS = itertools.count()
SEEDED = {"temperature": 1, "seed": 11}
GREEDY = {"temperature": 0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": (CHAT, {"messages": HELLO, **NO_THINKING, **GREEDY}),
    "seeded": (CHAT, {"messages": HELLO, **NO_THINKING, **SEEDED}),
    "thinking": (CHAT, {"messages": HELLO, **SEEDED, "logit_bias": {"128822": 9.5}}),
    "logprobs": (CHAT, {"messages": HELLO, **SEEDED, "logprobs": True, "top_logprobs": 2}),
    "schema": (
        CHAT,
        {
            "messages": ASK,
            **NO_THINKING,
            **SEEDED,
            "response_format": json_schema(SCHEMAS["object"]),
            "max_tokens": 100,
            "logprobs": True,
        },
    ),
    "text": (COMPLETIONS, {"prompt": "Once", **GREEDY, "logprobs": 2}),
    "echo": (COMPLETIONS, {"prompt": "Once", **GREEDY, "logprobs": 1, "echo": True}),
    "long prompt": (
        COMPLETIONS,
        {"prompt": list(range(300, 900)), **SEEDED, "logprobs": 0, "max_tokens": 4},
    ),
}


def told(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream on a worker that has never seen the prompt."""
    fresh = {"model": MODEL, "max_tokens": 10, "return_token_ids": True, **body}
    return chunks(http, path, fresh | {"cache_salt": f"resume-{next(SALTS)}"})


def approximate(value: Any) -> Any:
    """To compare with: the last bits of log-probabilities depend on how a prompt was cut."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-4)
    if isinstance(value, list):
        return [approximate(v) for v in value]
    if isinstance(value, dict):
        return {k: approximate(v) for k, v in value.items()}
    return value


@pytest.mark.parametrize("case", CASES)
def test_every_cut_goes_on_without_a_seam(http: httpx.Client, case: str) -> None:
    path, body = CASES[case]
    whole = told(http, path, body)
    for cut in range(1, len(whole)):
        known = token_ids(whole[:cut])
        rest = told(http, path, body | {"resume_token_ids": known})
        assert [only(c) for c in rest] == [approximate(only(c)) for c in whole[cut:]], cut
        for again, once in zip(rest, whole[cut:], strict=True):
            usage = again["usage"]
            for name in ("prompt_tokens", "completion_tokens", "completion_tokens_details"):
                assert usage[name] == once["usage"][name]
            assert usage["resumed_tokens"] == len(known)
            hit = usage["prompt_cache_hit_tokens"]
            assert hit + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]


def test_cached_tokens_are_not_counted_as_recomputed(http: httpx.Client) -> None:
    body = {"model": MODEL, "prompt": list(range(300, 900)), "max_tokens": 4, "temperature": 0}
    body |= {"cache_salt": "warm", "return_token_ids": True, "ignore_eos": True}
    known = token_ids(chunks(http, COMPLETIONS, body))[:2]
    usage = chunks(http, COMPLETIONS, body | {"resume_token_ids": known})[-1]["usage"]
    assert usage["prompt_cache_hit_tokens"] == 512
    assert usage["recomputed_tokens"] == 600 + 2 - 512
    assert usage["completion_tokens"] == 4


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_whole_answer_is_whole(http: httpx.Client, path: str) -> None:
    body = {"model": MODEL, "max_tokens": 6, **GREEDY, **NO_THINKING}
    body |= {"messages": HELLO} if path == CHAT else {"prompt": "Once"}
    known = token_ids(chunks(http, path, body | {"return_token_ids": True}))[:3]
    once, again = (
        http.post(path, json=body | more).json() for more in ({}, {"resume_token_ids": known})
    )
    assert again["choices"] == once["choices"]
    assert again["usage"]["completion_tokens"] == 6
    assert again["usage"]["resumed_tokens"] == 3


def test_nothing_emitted_yet_but_the_start(http: httpx.Client) -> None:
    path, body = CASES["greedy"]
    assert only(told(http, path, body)[0])["delta"]["role"] == "assistant"
    resumed = told(http, path, body | {"resume_token_ids": []})
    assert "role" not in only(resumed[0])["delta"]


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        (COMPLETIONS, {"resume_token_ids": [1, 5]}, 422),
        (COMPLETIONS, {"resume_token_ids": [5, 5], "stop_token_ids": [5]}, 422),
        (COMPLETIONS, {"resume_token_ids": [5], "logprobs": 1, "stream": False}, 400),
        (CHAT, {"resume_token_ids": [1, 5]}, 422),
    ],
)
def test_tokens_that_cannot_be_of_this_request(
    http: httpx.Client, path: str, change: dict[str, Any], status: int
) -> None:
    body = {"model": MODEL, "messages": HELLO, "prompt": "Once", "max_tokens": 4, "stream": True}
    response = http.post(path, json=body | change)
    assert response.status_code == status, response.text
    assert {"message", "type", "param", "code"} <= response.json()["error"].keys()


def test_text_beyond_a_stop_string_cannot_be_of_this_request(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"prompt": "one two three four"}).json()["tokens"]
    body = {"model": MODEL, "prompt": "Once", "stop": "two", "resume_token_ids": ids}
    response = http.post(COMPLETIONS, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "resume_token_ids")


def test_text_of_another_form_cannot_be_of_this_request(http: httpx.Client) -> None:
    _, body = CASES["schema"]
    ids = http.post("/tokenize", json={"prompt": "[1, 2]"}).json()["tokens"]
    body = {"model": MODEL, "stream": True, **body, "resume_token_ids": ids}
    response = http.post(CHAT, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "resume_token_ids")
