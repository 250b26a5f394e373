import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.chunks import MalformedChunk, parse_chunk
from controlplane.gateway.merge import Merger, Message, Text
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
PIECES = st.lists(st.text(max_size=5), max_size=6)


def merge(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """The one choice that a stream of choices merges to."""
    merger = Merger(Message())
    for choice in choices:
        chunk = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, **choice}]}
        merger.add(parse_chunk(json.dumps(chunk).encode()))
    whole = json.loads(merger.result(USAGE))
    assert whole["object"] == "chat.completion"
    assert (whole["id"], whole["created"], whole["model"]) == ("c", 1, "m")
    (choice,) = whole["choices"]
    result: dict[str, Any] = choice
    return result


def delta(**fields: object) -> dict[str, Any]:
    return {"delta": fields}


@given(PIECES, PIECES)
def test_a_stream_merges_to_the_whole_text(reasoning: list[str], content: list[str]) -> None:
    choices = [
        *(delta(reasoning_content=piece) for piece in reasoning),
        *(delta(content=piece) for piece in content),
        {"delta": {}, "finish_reason": "stop"},
    ]
    choice = merge(choices)
    message = choice["message"]
    assert message.get("reasoning_content", "") == "".join(reasoning)
    assert ("reasoning_content" in message) == bool(reasoning)
    assert message["content"] == ("".join(content) if content else None)
    assert choice["finish_reason"] == "stop"


@given(st.lists(st.lists(st.text(max_size=4), min_size=1, max_size=4), min_size=1, max_size=3))
def test_tool_calls_merge_by_index(arguments: list[list[str]]) -> None:
    choices = []
    for index, pieces in enumerate(arguments):
        head = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": "f"}}
        choices.append(delta(tool_calls=[head]))
        for piece in pieces:
            part = {"index": index, "function": {"arguments": piece}}
            choices.append(delta(tool_calls=[part]))
    calls = merge(choices)["message"]["tool_calls"]
    assert [call["id"] for call in calls] == [f"c{index}" for index in range(len(arguments))]
    assert [call["function"]["arguments"] for call in calls] == ["".join(p) for p in arguments]


def test_an_empty_reasoning_stays() -> None:
    message = merge(
        [delta(role="assistant", content=None, reasoning_content=""), delta(content="x")]
    )
    assert message["message"]["reasoning_content"] == ""


def test_logprobs_are_strung_together() -> None:
    first = {"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -0.5}]}}
    second = {"delta": {"content": "b"}, "logprobs": {"content": [{"token": "b", "logprob": -1.5}]}}
    logprobs = merge([first, second, {"delta": {}, "logprobs": None}])["logprobs"]
    assert [entry["token"] for entry in logprobs["content"]] == ["a", "b"]


def test_a_delta_of_another_shape_is_refused() -> None:
    with pytest.raises(MalformedChunk):
        merge([delta(content=3)])


@given(PIECES)
def test_a_completion_merges_to_its_text(pieces: list[str]) -> None:
    merger = Merger(Text())
    for piece in pieces:
        choice = {"text": piece, "logprobs": {"tokens": [piece]}, "finish_reason": None}
        merger.add(parse_chunk(json.dumps({"id": "c", "choices": [choice]}).encode()))
    merger.add(parse_chunk(b'{"id":"c","choices":[{"text":"","finish_reason":"stop"}]}'))
    whole = json.loads(merger.result(USAGE))
    assert whole["object"] == "text_completion"
    (choice,) = whole["choices"]
    assert choice["text"] == "".join(pieces)
    assert choice["logprobs"] == ({"tokens": pieces} if pieces else None)
    assert choice["finish_reason"] == "stop"
