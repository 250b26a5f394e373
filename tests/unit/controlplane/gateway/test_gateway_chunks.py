import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.chunks import MalformedChunk, parse_chunk, usage_on_the_wire
from controlplane.usage.records import TokenUsage


def parse(**fields: object):  # type: ignore[no-untyped-def]
    return parse_chunk(json.dumps(fields).encode())


def test_usage_leaves_the_fields_and_the_rest_stays_as_it_was() -> None:
    choices = b'[ {"delta":{"content":"\\u00e9"}} ]'
    data = b'{"id": "a", "choices": ' + choices + b', "usage": {"prompt_tokens": 3}}'
    chunk = parse_chunk(data)
    assert chunk.usage == TokenUsage(0, 3, 0, 0)
    assert chunk.encode() == b'{"id":"a","choices":' + choices + b"}"


def test_usage_is_put_back_when_asked() -> None:
    chunk = parse(id="a", choices=[{"finish_reason": "stop"}])
    usage = TokenUsage(1, 2, 3, 1)
    assert json.loads(chunk.encode(usage))["usage"] == usage_on_the_wire(usage)
    alone = json.loads(chunk.encode_usage_alone(usage))
    assert alone == {"id": "a", "choices": [], "usage": usage_on_the_wire(usage)}


def test_the_finish_reason_is_found() -> None:
    assert parse(choices=[{"finish_reason": None}]).finish_reason is None
    assert parse(choices=[{"finish_reason": "length"}]).finish_reason == "length"
    assert not parse(choices=[]).has_choices


@given(st.lists(st.integers(0, 2**32 - 1)), st.text())
def test_token_ids_are_taken_out_and_the_rest_stays(ids: list[int], text: str) -> None:
    choice = {"index": 0, "delta": {"content": text, "token_ids": [1]}, "stop_reason": None}
    told = choice | {"token_ids": ids, "prompt_token_ids": [2]}
    chunk = parse(id="a", prompt_token_ids=[3], choices=[told])
    assert chunk.token_ids == ids
    assert json.loads(chunk.encode()) == {"id": "a", "choices": [choice]}


@pytest.mark.parametrize("told", [{}, {"token_ids": None}])
def test_token_ids_may_not_be_told(told: dict[str, None]) -> None:
    chunk = parse(choices=[{"delta": {}} | told])
    assert chunk.token_ids is None
    assert not chunk.is_silent
    assert json.loads(chunk.encode()) == {"choices": [{"delta": {}}]}


@pytest.mark.parametrize(
    ("choice", "is_silent"),
    [
        ({"delta": {}, "logprobs": None, "finish_reason": None}, True),
        ({"text": ""}, True),
        ({"delta": {"content": ""}}, False),
        ({"text": " "}, False),
        ({"delta": {}, "finish_reason": "stop"}, False),
        ({"delta": {}, "logprobs": {"content": []}}, False),
    ],
)
def test_a_chunk_that_tells_nothing_but_ids_is_silent(
    choice: dict[str, object], is_silent: bool
) -> None:
    assert parse(choices=[choice | {"token_ids": [5]}]).is_silent == is_silent


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_cache_hit_tokens"]),
        st.integers(-5, 50),
    ),
    st.integers(-5, 50),
    st.integers(-5, 50),
)
def test_usage_always_makes_sense(wire: dict[str, object], cached: int, reasoning: int) -> None:
    wire = {"prompt_tokens": 0} | wire
    wire["prompt_tokens_details"] = {"cached_tokens": cached}
    wire["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    usage = parse(choices=[], usage=wire).usage
    assert min(usage.hit_tokens, usage.miss_tokens, usage.output_tokens) >= 0
    assert 0 <= usage.reasoning_tokens <= usage.output_tokens
    assert usage.hit_tokens + usage.miss_tokens == max(wire["prompt_tokens"], 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"choices":3}', b'{"usage":{"prompt_tokens":"many"}}', b'{"usage":7}']
    + [b'{"choices":[{"token_ids":%b}]}' % ids for ids in (b"3", b"[-1]", b"[4294967296]", b'[""]')]
    + [b'{"choices":[{"finish_reason":3}]}', b'{"choices":[3]}'],
)
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedChunk):
        parse_chunk(data)
