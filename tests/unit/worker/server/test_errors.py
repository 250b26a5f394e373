"""Every refusal has its status, its code and OpenAI's shape, and leaves the engine idle."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MODEL = "deepseek-v4-flash"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    COMPLETIONS: {"model": MODEL, "prompt": "Hi", "max_tokens": 1},
}


def error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()["error"]
    assert {"message", "type", "param", "code"} <= body.keys()
    assert isinstance(body["message"], str)
    return dict(body)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "gpt"}, 404, "model_not_found"),
        ({"model": None}, 400, "invalid_request"),
        ({"n": 0}, 422, "invalid_parameter"),
        ({"n": 17}, 422, "invalid_parameter"),
        ({"resume_token_ids": [129_280]}, 422, "invalid_parameter"),
        ({"resume_token_ids": [5, 5]}, 422, "invalid_parameter"),
        ({"resume_token_ids": "5"}, 400, "invalid_request"),
        ({"resume_token_ids": [5], "n": 2}, 400, "invalid_request"),
        ({"temperature": 2.1}, 422, "invalid_parameter"),
        ({"temperature": "hot"}, 400, "invalid_request"),
        ({"top_p": 0}, 422, "invalid_parameter"),
        ({"max_tokens": 0}, 422, "invalid_parameter"),
        ({"max_tokens": 393_217}, 422, "invalid_parameter"),
        ({"stop": ["x"] * 17}, 422, "invalid_parameter"),
        ({"stop": ""}, 422, "invalid_parameter"),
        ({"logit_bias": {"x": 1}}, 422, "invalid_parameter"),
        ({"logit_bias": {"129280": 1}}, 422, "invalid_parameter"),
        ({"stream_options": {}}, 400, "invalid_request"),
        ({"max_prompt_tokens": 0}, 422, "invalid_parameter"),
        ({"priority": 1001}, 422, "invalid_parameter"),
        ({"priority": 0.5}, 400, "invalid_request"),
        ({"fairness_key": "k" * 129}, 422, "invalid_parameter"),
        ({"fairness_key": 7}, 400, "invalid_request"),
        ({"deadline_seconds": 0}, 422, "invalid_parameter"),
        ({"deadline_seconds": 86_401}, 422, "invalid_parameter"),
        ({"deadline_seconds": "1 s"}, 400, "invalid_request"),
    ],
)
def test_bad_fields(
    http: httpx.Client, path: str, change: dict[str, Any], status: int, code: str
) -> None:
    response = http.post(path, json=BODIES[path] | change)
    assert (response.status_code, error(response)["code"]) == (status, code)


@pytest.mark.parametrize("change", [{"model": "m" * 10**6}, {"thinking": "m" * 10**6}])
def test_what_a_caller_sent_is_not_quoted_without_end(
    http: httpx.Client, change: dict[str, Any]
) -> None:
    response = http.post(CHAT, json=BODIES[CHAT] | change)
    assert response.status_code in (400, 404)
    assert len(error(response)["message"]) < 2_000


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"reasoning_effort": "extreme"}, 422),
        ({"thinking": {"type": "sometimes"}}, 422),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 422),
        ({"messages": []}, 400),
        ({"messages": "Hi"}, 400),
        ({"top_logprobs": 2}, 400),
        ({"logprobs": True, "top_logprobs": 21}, 422),
        ({"response_format": {"type": "json_schema"}}, 400),
    ],
)
def test_bad_chat_fields(http: httpx.Client, change: dict[str, Any], status: int) -> None:
    response = http.post(CHAT, json=BODIES[CHAT] | change)
    assert response.status_code == status, error(response)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": []}, 400),
        ({"prompt": [-1]}, 422),
        ({"prompt": [129_280]}, 422),
        ({"prompt": ["a", "b"]}, 400),
        ({"suffix": "x", "echo": True}, 400),
        ({"suffix": 1}, 400),
        ({"best_of": 2}, 400),
        ({"logprobs": 21}, 422),
    ],
)
def test_bad_completion_fields(http: httpx.Client, change: dict[str, Any], status: int) -> None:
    response = http.post(COMPLETIONS, json=BODIES[COMPLETIONS] | change)
    assert response.status_code == status, error(response)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"\xff", b'{"a": "\xff"}', b"[" * 100_000, b'{"model": "\\ud800"}'],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize"])
def test_malformed_json(http: httpx.Client, path: str, body: bytes) -> None:
    response = http.post(path, content=body)
    assert response.status_code == 400
    assert error(response)["code"] == "invalid_request"


@pytest.mark.parametrize("effort", [["high"], {}, 1, True])
@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_an_effort_that_is_no_string(http: httpx.Client, path: str, effort: object) -> None:
    response = http.post(path, json=BODIES[CHAT] | {"reasoning_effort": effort})
    assert (response.status_code, error(response)["code"]) == (400, "invalid_request")


def test_deeply_nested_tools_are_refused(http: httpx.Client) -> None:
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"type": "object", "properties": {"x": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    response = http.post(CHAT, json=BODIES[CHAT] | {"tools": [tool]})
    assert response.status_code == 400
    assert "depth" in error(response)["message"]


def test_long_prompt_tells_both_lengths_and_where_it_is(http: httpx.Client) -> None:
    response = http.post(COMPLETIONS, json=BODIES[COMPLETIONS] | {"prompt": [5] * 8192})
    body = error(response)
    assert (response.status_code, body["code"]) == (400, "context_length_exceeded")
    assert (body["prompt_tokens"], body["max_model_len"]) == (8192, 8192)
    assert "8192" in body["message"]
    assert body["param"] == "prompt"
    long = [{"role": "user", "content": "a " * 9_000}]
    assert error(http.post(CHAT, json=BODIES[CHAT] | {"messages": long}))["param"] == "messages"


def test_longest_prompt_that_fits_is_served(http: httpx.Client) -> None:
    response = http.post(COMPLETIONS, json=BODIES[COMPLETIONS] | {"prompt": [5] * 8191})
    assert response.status_code == 200
    assert response.json()["usage"]["completion_tokens"] == 1


def test_prompt_limit_tells_the_true_count(http: httpx.Client) -> None:
    response = http.post(CHAT, json=BODIES[CHAT] | {"max_prompt_tokens": 3})
    body = error(response)
    assert (response.status_code, body["code"]) == (409, "prompt_exceeds_limit")
    again = http.post(CHAT, json=BODIES[CHAT] | {"max_prompt_tokens": body["prompt_tokens"]})
    assert again.status_code == 200
    assert again.json()["usage"]["prompt_tokens"] == body["prompt_tokens"]


def test_large_body_is_refused(http: httpx.Client) -> None:
    response = http.post(CHAT, content=b" " * (65 << 20))
    assert (response.status_code, error(response)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", CHAT, 405)]
)
def test_unknown_routes(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert error(response)["code"] == "not_found"


def test_errors_do_not_repeat_the_prompt(http: httpx.Client) -> None:
    secret = "canary-5f1c"
    response = http.post(
        CHAT,
        json=BODIES[CHAT] | {"messages": [{"role": "user", "content": secret}], "temperature": 9},
    )
    assert secret not in response.text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["enabled", "none", "required", "json_object", "auto", "function"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "function", "name", "text", "1"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "max_prompt_tokens",
    "cache_salt", "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "stop",
    "stop_token_ids", "ignore_eos", "n", "stream_options", "frequency_penalty",
    "presence_penalty", "logprobs", "top_logprobs", "reasoning_effort", "thinking", "tools",
    "tool_choice", "response_format", "echo", "best_of", "suffix", "priority", "fairness_key",
    "deadline_seconds", "stream", "resume_token_ids", "return_token_ids",
]  # fmt: skip


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from([CHAT, COMPLETIONS]), field=st.sampled_from(FIELDS), value=JSON)
def test_any_value_in_any_field(http: httpx.Client, path: str, field: str, value: Any) -> None:
    limit = {"max_completion_tokens": 1} if path == CHAT else {"max_tokens": 1}
    response = http.post(path, json=BODIES[path] | limit | {field: value})
    assert response.status_code in (200, 400, 404, 409, 422, 504), response.text
    if response.status_code != 200:
        error(response)
