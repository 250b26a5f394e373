# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
"""Grammars, followed by a sampler that draws any allowed token: no model could be worse."""

import json
import random
from typing import Any

import pytest
from support.structured import (
    ARGUMENTS,
    ASK,
    EOS,
    NO_THINKING,
    SCHEMAS,
    assert_valid,
    closed,
    draw,
    json_schema,
    read,
    token_ids,
    tool,
)

from worker.encoding.chat import ChatEncoding, ChatPrompt
from worker.encoding.grammar import AnswerGrammar
from worker.encoding.tokenizer import Tokenizer
from worker.errors import InvalidRequest

WEATHER = tool("weather", ARGUMENTS)
PING = tool("ping-2", closed({}))
ONE_CALL = {"parallel_tool_calls": False}


def prompt_for(chat: ChatEncoding, **fields: Any) -> ChatPrompt:
    return chat.encode({"messages": ASK, **fields})


def grammar_for(chat: ChatEncoding, **fields: Any) -> AnswerGrammar:
    grammar = prompt_for(chat, **fields).grammar
    assert grammar is not None
    return grammar


def generated(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of `text`, in which markup and </think> are control tokens."""
    for control in ("｜DSML｜", "</think>"):
        text = text.replace(control, f"\0{control}\0")
    return tokenizer.encode_segments(
        [(part, i % 2 == 1) for i, part in enumerate(text.split("\0")) if part or i % 2]
    )


def accepts(grammar: AnswerGrammar, output: list[int]) -> bool:
    return all(output[i] in token_ids(grammar.allowed(output[:i])) for i in range(len(output)))


@pytest.mark.parametrize("fields", [{}, {"tools": [tool("f", {"type": "object"}, strict=False)]}])
def test_free_answers_have_no_grammar(chat_encoding: ChatEncoding, fields: dict[str, Any]) -> None:
    assert prompt_for(chat_encoding, **fields).grammar is None


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_drawn_satisfies_the_schema(chat_encoding: ChatEncoding, name: str) -> None:
    schema = SCHEMAS[name]
    for seed in range(25):
        prompt = prompt_for(chat_encoding, response_format=json_schema(schema), **NO_THINKING)
        choice = read(chat_encoding, prompt, draw(prompt, random.Random(seed)))
        assert choice["finish_reason"] == "stop"
        assert_valid(json.loads(choice["message"]["content"]), schema)


def test_json_object_is_an_object(chat_encoding: ChatEncoding, tokenizer: Tokenizer) -> None:
    fields = {"response_format": {"type": "json_object"}, **NO_THINKING}
    answer = tokenizer.encode('{"a": [1, {"b": null}],\n  "c": "</think>"}')
    assert accepts(grammar_for(chat_encoding, **fields), [*answer, EOS])
    grammar = grammar_for(chat_encoding, **fields)
    assert all(tokenizer.token_bytes(i)[:1] == b"{" for i in token_ids(grammar.allowed([])))
    for end in range(len(answer)):
        assert EOS not in token_ids(grammar.allowed(answer[:end]))
    assert token_ids(grammar.allowed(answer)) == [EOS]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_forced_calls_satisfy_their_schemas(chat_encoding: ChatEncoding, choice: Any) -> None:
    called = set()
    for seed in range(25):
        prompt = prompt_for(
            chat_encoding, tools=[WEATHER, PING], tool_choice=choice, **ONE_CALL, **NO_THINKING
        )
        answer = read(chat_encoding, prompt, draw(prompt, random.Random(seed)))
        assert answer["finish_reason"] == "tool_calls"
        (call,) = answer["message"]["tool_calls"]
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        assert_valid(arguments, ARGUMENTS if name == "weather" else closed({}))
        called.add(name)
    assert called == ({"weather", "ping-2"} if choice == "required" else {"weather"})


def test_forced_call_of_a_lenient_tool_is_a_call(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer
) -> None:
    lenient = tool("look", {"type": "object"}, strict=False)
    fields = {"tools": [lenient], "tool_choice": "required", **NO_THINKING}
    text = (
        '<｜DSML｜invoke name="look">\n'
        '<｜DSML｜parameter name="any" string="true">a </b> c</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="n" string="false">[1]</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n"
    )
    end = "</｜DSML｜tool_calls>"
    for calls in (1, 2):
        answer = [*generated(tokenizer, text * calls + end), EOS]
        assert accepts(grammar_for(chat_encoding, **fields), answer)
    wrong = generated(tokenizer, text.replace("look", "leap"))
    assert not accepts(grammar_for(chat_encoding, **fields), wrong)


CALL = (
    "\n\n<｜DSML｜tool_calls>\n"
    '<｜DSML｜invoke name="ping-2">\n</｜DSML｜invoke>\n'
    "</｜DSML｜tool_calls>"
)


@pytest.mark.parametrize("text", ["Just text </b> <", "Let me see." + CALL, CALL])
def test_strict_tools_may_be_called_or_not(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, text: str
) -> None:
    answer = [*generated(tokenizer, text), EOS]
    assert accepts(grammar_for(chat_encoding, tools=[WEATHER, PING], **NO_THINKING), answer)


def test_grammar_begins_where_reasoning_ends(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer
) -> None:
    grammar = grammar_for(chat_encoding, response_format=json_schema({"type": "null"}))
    thought = tokenizer.encode("hm, { or [?")
    markup, end = generated(tokenizer, "｜DSML｜</think>")
    free = token_ids(grammar.allowed(thought))
    assert len(free) > 129_000
    assert end in free
    assert EOS not in free
    assert markup not in free
    (null,) = tokenizer.encode("null")
    assert null in token_ids(grammar.allowed([*thought, end]))
    assert token_ids(grammar.allowed([*thought, end, null])) == [EOS]


def test_calls_without_end_of_reasoning_follow_the_grammar(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer
) -> None:
    prompt = prompt_for(chat_encoding, tools=[WEATHER, PING])
    output = generated(tokenizer, "hm" + CALL)
    assert prompt.grammar is not None
    assert accepts(prompt.grammar, [*output, EOS])
    assert token_ids(prompt.grammar.allowed([*output])) == [EOS]
    (call,) = read(chat_encoding, prompt, [*output, EOS])["message"]["tool_calls"]
    assert call["function"]["name"] == "ping-2"
    assert not accepts(
        grammar_for(chat_encoding, tools=[PING]),
        generated(tokenizer, "hm" + CALL.replace("ping-2", "pong")),
    )


@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
def test_state_follows_from_the_output_alone(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, thinking: str
) -> None:
    fields = {
        "response_format": json_schema(SCHEMAS["object"]),
        "thinking": {"type": thinking},
    }
    start = generated(tokenizer, "hm</think>") if thinking == "enabled" else []
    output = [*start, *tokenizer.encode('{"town": "Ulm", "degrees": 7}')]
    stepwise = grammar_for(chat_encoding, **fields)
    for end in range(len(output) + 1):
        moved = grammar_for(chat_encoding, **fields)
        assert moved.allowed(output[:end]) == stepwise.allowed(output[:end])


@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
def test_looking_ahead_sees_what_comes_and_changes_nothing(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, thinking: str
) -> None:
    fields = {
        "response_format": json_schema(SCHEMAS["object"]),
        "thinking": {"type": thinking},
    }
    start = generated(tokenizer, "hm</think>") if thinking == "enabled" else []
    output = [*start, *tokenizer.encode('{"town": "Ulm", "degrees": 7}'), EOS]
    grammar, plain = grammar_for(chat_encoding, **fields), grammar_for(chat_encoding, **fields)
    masks = [plain.allowed(output[:end]) for end in range(len(output))]
    for end in range(len(output)):
        assert grammar.allowed(output[:end]) == masks[end]
        drafts = output[end:-1]
        assert grammar.allowed_after(drafts) == masks[end + 1 :]
        for at in range(len(drafts)):
            wrong = [*drafts[:at], EOS, *drafts[at:]]
            assert grammar.allowed_after(wrong) == masks[end + 1 : end + 1 + at]
    assert grammar.allowed_after([]) == []


def test_looking_ahead_passes_from_reasoning_into_a_call(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer
) -> None:
    output = generated(tokenizer, "hm" + CALL)
    grammar = grammar_for(chat_encoding, tools=[WEATHER, PING])
    plain = grammar_for(chat_encoding, tools=[WEATHER, PING])
    grammar.allowed([])
    masks = [plain.allowed(output[:end]) for end in range(len(output) + 1)]
    assert grammar.allowed_after(output) == masks[1:]
    assert grammar.allowed(output) == masks[-1]


@pytest.mark.parametrize(
    ("schema", "construct"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {}}, "not"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "format": "poem"}, "poem"),
        ({"$ref": "#/$defs/none"}, "#/\\$defs/none|/\\$defs/none"),
        ({"$ref": "http://127.0.0.1/x"}, "leads out of the schema"),
        ({"$ref": "#"}, "nothing satisfies it"),
        (closed({"a": False}), "unsatisfiable"),
        ({"minLength": 3, "maxLength": 1, "type": "string"}, "minLength"),
    ],
)
def test_what_cannot_be_enforced_is_named(
    chat_encoding: ChatEncoding, schema: dict[str, Any], construct: str
) -> None:
    with pytest.raises(InvalidRequest, match=construct):
        prompt_for(chat_encoding, response_format=json_schema(schema))


@pytest.mark.parametrize(
    ("schema", "construct"),
    [
        (closed({"a": {"type": "array", "items": {"type": "null"}, "uniqueItems": True}}), "'f'"),
        (closed({}, minProperties=1), "minProperties"),
        (closed({'a"b': {"type": "string"}}), "cannot name a parameter"),
        (closed({"a b": {"type": "string"}}), "cannot name a parameter"),
        (closed({"a": {"type": "string", "minLength": 3, "maxLength": 1}}), "#/properties/a"),
    ],
)
def test_what_a_tool_cannot_enforce_is_named(
    chat_encoding: ChatEncoding, schema: dict[str, Any], construct: str
) -> None:
    with pytest.raises(InvalidRequest, match=construct) as caught:
        prompt_for(chat_encoding, tools=[tool("f", schema)])
    assert caught.value.param == "tools"


def test_prefix_and_grammar_do_not_mix(chat_encoding: ChatEncoding) -> None:
    messages = [*ASK, {"role": "assistant", "content": "[", "prefix": True}]
    with pytest.raises(InvalidRequest, match="prefix"):
        chat_encoding.encode(
            {"messages": messages, "response_format": json_schema({}), **NO_THINKING}
        )
