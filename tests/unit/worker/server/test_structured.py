"""Structured output over the wire, from a model whose weights are random."""

import json
from typing import Any

import httpx
import openai
import pytest
from support.structured import (
    ARGUMENTS,
    ASK,
    NO_THINKING,
    SCHEMAS,
    assert_valid,
    closed,
    json_schema,
    tool,
)

MODEL = "deepseek-v4-flash"
BODY = {"model": MODEL, "messages": ASK, "max_tokens": 600, **NO_THINKING}
TOOLS = [tool("weather", ARGUMENTS), tool("ping", closed({}))]


def chat(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json=BODY | fields)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


@pytest.mark.parametrize("name", SCHEMAS)
def test_content_satisfies_the_schema(http: httpx.Client, name: str) -> None:
    for seed in range(3):
        document = chat(http, response_format=json_schema(SCHEMAS[name]), seed=seed)
        (choice,) = document["choices"]
        assert choice["finish_reason"] == "stop"
        assert_valid(json.loads(choice["message"]["content"]), SCHEMAS[name])


def test_streamed_content_and_usage_are_the_same(http: httpx.Client) -> None:
    fields = {"response_format": json_schema(SCHEMAS["object"]), "seed": 5}
    whole = chat(http, **fields)
    response = http.post("/v1/chat/completions", json=BODY | fields | {"stream": True})
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n")]
    chunks = [json.loads(line) for line in lines if line.startswith("{")]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_json_mode_gives_an_object_or_its_beginning(http: httpx.Client) -> None:
    document = chat(http, response_format={"type": "json_object"}, max_tokens=20)
    assert document["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "ping"}}])
def test_forced_tool_calls(http: httpx.Client, choice: Any) -> None:
    for seed in range(2):
        document = chat(http, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, seed=seed)
        answer = document["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        (call,) = answer["message"]["tool_calls"]
        schema = ARGUMENTS if call["function"]["name"] == "weather" else closed({})
        assert_valid(json.loads(call["function"]["arguments"]), schema)


def test_reasoning_is_free_until_it_ends(http: httpx.Client) -> None:
    fields = {"response_format": json_schema(SCHEMAS["object"]), "thinking": {"type": "enabled"}}
    ended = chat(http, **fields, logit_bias={"128822": 100})  # </think>
    assert_valid(json.loads(ended["choices"][0]["message"]["content"]), SCHEMAS["object"])
    cut = chat(http, **fields, max_tokens=30, logit_bias={"1": 100})  # the end token
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens_details"]["reasoning_tokens"] == 30


@pytest.mark.parametrize(
    ("fields", "param", "construct"),
    [
        ({"response_format": json_schema({"not": {}})}, "response_format", "not"),
        ({"tools": [tool("f", closed({}, minProperties=1))]}, "tools", "minProperties"),
        (
            {"response_format": {"type": "json_object"}, "ignore_eos": True},
            "ignore_eos",
            "response_format",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused(
    http: httpx.Client, fields: dict[str, Any], param: str, construct: str
) -> None:
    response = http.post("/v1/chat/completions", json=BODY | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert construct in error["message"]


def test_tokenize_counts_the_schema(http: httpx.Client) -> None:
    body = {"messages": ASK, **NO_THINKING}
    plain = http.post("/tokenize", json=body).json()["count"]
    bound = http.post(
        "/tokenize", json=body | {"response_format": json_schema(SCHEMAS["object"])}
    ).json()["count"]
    assert bound > plain


def test_the_openai_client_parses_it(base_url: str, http: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=ASK,  # type: ignore[arg-type]
        tools=TOOLS,  # type: ignore[arg-type]
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=600,
        stream=True,
        extra_body=NO_THINKING,
    )
    deltas = [call for c in stream for call in c.choices[0].delta.tool_calls or []]
    names = [d.function.name for d in deltas if d.function and d.function.name]
    arguments = "".join(d.function.arguments or "" for d in deltas if d.function)
    assert names == ["weather"]
    assert_valid(json.loads(arguments), ARGUMENTS)
    client.close()
