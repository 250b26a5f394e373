# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
"""Streams with every kind of text held back at the cut: a model that says what it is told."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.scripted_engine import EOS, MODEL, Script, scripted
from support.structured import NO_THINKING, closed, tool
from support.wire import chunks, only, token_ids
from support.worker_server import served

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CALL = (
    '<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="town" string="true">Ulm 🎉'
    "</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
)
CALLS = f"\n\n<｜DSML｜tool_calls>\n{CALL}{CALL}</｜DSML｜tool_calls>"
WITH_TOOLS = {"tools": [tool("weather", closed({"town": {"type": "string"}}), strict=False)]}
LOGPROBS = {"logprobs": True, "top_logprobs": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "split characters": ("hm 🎉 ß</think>Grüße 🎉🎊 end", {}),
    "split characters, logprobs": ("hm 🎉 ß</think>Grüße 🎉🎊 end", LOGPROBS),
    "a broken character at the end": ("ab \x00", {"max_tokens": 5, **NO_THINKING}),
    "tools": ("let me</think>Looking." + CALLS, WITH_TOOLS),
    "tools, logprobs": ("let me</think>Looking." + CALLS, WITH_TOOLS | LOGPROBS),
    "tools in the reasoning": ("let me" + CALLS, WITH_TOOLS),
    "stop string": ("hm</think>one ST two STO STOP rest", {"stop": "STOP"}),
    "stop string, logprobs": ("hm</think>one S ST STOP", {"stop": ["STOP", "TOST"], **LOGPROBS}),
    "a stop string that never comes": ("hm</think>STSTST", {"stop": "STSTSTO", **LOGPROBS}),
    "cut by the limit": ("hm</think>one ST", {"stop": "STOP", "max_tokens": 4, **LOGPROBS}),
}


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def http(
    script: Script, tokenizer: Tokenizer, chat_encoding: ChatEncoding
) -> Iterator[httpx.Client]:
    serving = scripted(script, tokenizer, chat_encoding)
    with served(serving) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def spoken(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of `text` with its markup as the model would emit it."""
    parts = re.split("(</think>|｜DSML｜)", text)
    return tokenizer.encode_segments([(p, i % 2 == 1) for i, p in enumerate(parts) if p])


def assert_no_seam(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Cut the stream of `body` after each of its chunks."""
    body = {"model": MODEL, "max_tokens": 500, "return_token_ids": True, **body}
    whole = chunks(http, path, body)
    assert only(whole[-1])["finish_reason"] is not None
    for cut in range(1, len(whole)):
        known = token_ids(whole[:cut])
        rest = chunks(http, path, body | {"resume_token_ids": known})
        assert [only(c) for c in rest] == [nameless(only(c)) for c in whole[cut:]], cut
        for again, once in zip(rest, whole[cut:], strict=True):
            assert again["usage"].items() >= counts(once["usage"]).items()


def counts(usage: dict[str, Any]) -> dict[str, Any]:
    return {k: usage[k] for k in ("completion_tokens", "completion_tokens_details")}


def nameless(choice: dict[str, Any]) -> dict[str, Any]:
    """With any id for tool calls, which are drawn at random."""
    calls = choice.get("delta", {}).get("tool_calls") or []
    for call in calls:
        if "id" in call:
            call["id"] = Anything()
    return choice


class Anything:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("case", CASES)
def test_chat(http: httpx.Client, script: Script, tokenizer: Tokenizer, case: str) -> None:
    text, fields = CASES[case]
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    prompt = http.post("/tokenize", json=body).json()
    script.prompt_tokens = prompt["count"]
    script.token_ids = spoken(tokenizer, text)
    if case == "a broken character at the end":
        script.token_ids = [*tokenizer.encode("ab"), *tokenizer.encode("🎉")[:-1]] * 2
    assert_no_seam(http, CHAT, body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": ["STOP", "🎊"]},
        {"logprobs": 1},
        {"logprobs": 1, "stop": "STOP"},
        {"echo": True},
    ],
)
def test_completion(
    http: httpx.Client, script: Script, tokenizer: Tokenizer, fields: dict[str, Any]
) -> None:
    script.prompt_tokens = 3
    script.token_ids = [*tokenizer.encode("one ST 🎉🎊 STO STOP"), EOS]
    assert_no_seam(http, COMPLETIONS, {"prompt": [5, 6, 7], **fields})
