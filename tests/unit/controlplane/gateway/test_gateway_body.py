import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import InvalidRequest, UnprocessableRequest
from controlplane.gateway import body
from controlplane.gateway.schemas import CHAT_FIELDS, COMPLETION_FIELDS

MESSAGES = [{"role": "user", "content": "Hello"}]


def parse(**fields: object) -> body.GenerationRequest:
    return body.parse_chat(json.dumps({"model": "m", "messages": MESSAGES} | fields).encode())


def rewrite(request: body.GenerationRequest) -> dict[str, object]:
    content = body.rewrite(request, prompt_tokens=7, max_tokens=5, salt="salt", fairness="tag")
    result: dict[str, object] = json.loads(content)
    return result


def test_the_newer_spelling_of_the_limit_wins() -> None:
    assert parse(max_tokens=3, max_completion_tokens=4).max_tokens == 4
    assert parse(max_tokens=3, max_completion_tokens=None).max_tokens == 3
    assert not parse().max_tokens_given


@pytest.mark.parametrize(
    ("effort", "max_tokens"), [("ultra", 131_072), ("xhigh", 65_536), ("none", 8_192)]
)
def test_every_spelling_of_an_effort_has_its_default_limit(effort: str, max_tokens: int) -> None:
    assert parse(reasoning_effort=effort).max_tokens == max_tokens


FORCED = ["required", {"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize("choice", FORCED, ids=["any", "named"])
def test_a_forced_call_turns_thinking_off_unless_it_is_asked_for(choice: object) -> None:
    assert not parse(tool_choice=choice).thinking
    assert not parse(tool_choice=choice, thinking=None, reasoning_effort=None).thinking
    assert parse(tool_choice=choice, thinking={"type": "enabled"}).thinking
    assert parse(tool_choice=choice, reasoning_effort="high").thinking
    assert all(parse(tool_choice=free).thinking for free in ("auto", "none", None))


def test_include_usage_counts_only_on_a_stream() -> None:
    options = {"include_usage": True}
    assert parse(stream=True, stream_options=options).include_usage
    assert not parse(stream_options=options).include_usage


def test_messages_pass_as_they_were_written() -> None:
    content = b'{"model":"m","messages":[ {"role":"user","content":"\\u00e9 \xc3\xa9"} ]}'
    rewritten = body.rewrite(
        body.parse_chat(content), prompt_tokens=1, max_tokens=1, salt="", fairness=""
    )
    assert b'[ {"role":"user","content":"\\u00e9 \xc3\xa9"} ]' in rewritten


@given(st.dictionaries(st.text(min_size=1), st.integers()))
def test_no_field_of_the_client_reaches_the_engine_unknown(fields: dict[str, int]) -> None:
    known = {"model", "messages", "n", "stream", "stream_options", "reasoning_effort", "thinking"}
    unknown = {k: v for k, v in fields.items() if k not in known | {"user_id"} and "max" not in k}
    ours = {"thinking", "max_tokens", "max_prompt_tokens", "cache_salt", "stream", "stream_options"}
    ours |= {"fairness_key", "return_token_ids", "seed"}
    assert rewrite(parse(**unknown)).keys() <= CHAT_FIELDS | ours


def test_what_the_hold_covers_replaces_what_the_client_said() -> None:
    sent = rewrite(parse(max_tokens=9, max_prompt_tokens=10**9, cache_salt="mine", stream=False))
    assert (sent["max_tokens"], sent["max_prompt_tokens"], sent["cache_salt"]) == (5, 7, "salt")
    assert sent["stream"] is True


def test_salts_differ_by_pepper_tenant_and_user() -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    salts = {
        body.cache_salt(pepper, tenant, user)
        for pepper in (b"p", b"q")
        for tenant in (one, other)
        for user in ("", "u", "v")
    }
    assert len(salts) == 12
    assert body.cache_salt(b"p", one, "u") in salts


@given(st.integers(1, 200))
def test_depth_is_bounded_and_brackets_in_strings_do_not_count(depth: int) -> None:
    deep = '"' + "[{" * 100 + '\\"[' + '"'
    for _ in range(depth):
        deep = f"[{deep}]"
    content = f'{{"model":"m","messages":[1],"x":{deep}}}'.encode()
    if depth + 1 > body.MAX_DEPTH:
        with pytest.raises(InvalidRequest):
            body.parse_chat(content)
    else:
        assert body.parse_chat(content).model == "m"


def test_a_wide_body_is_not_deep() -> None:
    assert parse(tools=[{"a": [1]} for _ in range(1000)]).model == "m"


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        body.parse_chat(content)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UnprocessableRequest) as caught:
        body.parse_chat(b'{"messages":[1]}')
    assert caught.value.param == "model"


def complete(**fields: object) -> body.GenerationRequest:
    return body.parse_completion(json.dumps({"model": "m", "prompt": "Hello"} | fields).encode())


@given(st.dictionaries(st.text(min_size=1), st.integers()))
def test_a_completion_has_fields_of_its_own(fields: dict[str, int]) -> None:
    known = {"model", "prompt", "suffix", "n", "stream", "stream_options", "user_id"}
    known |= {"messages", "thinking"}
    unknown = {k: v for k, v in fields.items() if k not in known and "max" not in k}
    ours = {"max_tokens", "max_prompt_tokens", "cache_salt", "stream", "stream_options"}
    ours |= {"fairness_key", "return_token_ids", "seed"}
    sent = rewrite(complete(**unknown, messages=[], thinking={}, suffix="end"))
    assert {"prompt", "suffix"} <= sent.keys() <= COMPLETION_FIELDS | ours


def test_both_sides_of_a_gap_are_paid_for() -> None:
    one, both = complete(), complete(suffix="x" * 100)
    assert both.prompt_guess_tokens == one.prompt_guess_tokens + 102
    assert both.max_tokens == 4_096


@pytest.mark.parametrize(
    "fields", [{"prompt": ""}, {"prompt": [1, 2]}, {"prompt": ["a"]}, {"suffix": 3}, {"n": 2}]
)
def test_a_completion_is_of_one_text(fields: dict[str, object]) -> None:
    with pytest.raises(UnprocessableRequest) as caught:
        complete(**fields)
    assert caught.value.param == next(iter(fields))
