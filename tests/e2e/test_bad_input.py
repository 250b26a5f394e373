"""Every bad request gets a typed answer in OpenAI's error shape, and leaves no money held."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from support.books import violations
from support.polling import until

MODEL = "deepseek-v4-flash"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def http(up: dict[str, Any]) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {up['api_key']}"}
    with httpx.Client(base_url=up["base_url"], headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def admin(up: dict[str, Any]) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    with httpx.Client(base_url=up["admin_url"], headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def poor_key(admin: httpx.Client) -> str:
    """A key of a tenant without money."""
    name = f"poor-{id(admin)}"
    tenant = admin.post("/admin/v1/tenants", json={"name": name}).raise_for_status().json()
    path = f"/admin/v1/tenants/{tenant['id']}/keys"
    key: str = admin.post(path, json={"name": "k"}).raise_for_status().json()["key"]
    return key


@pytest.fixture(autouse=True)
def nothing_stays_held(up: dict[str, Any]) -> Iterator[None]:
    yield
    until(lambda: not violations(up["database_url"]), seconds=5, what="exact books")


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["code"] == code
    assert error["message"]
    result: dict[str, Any] = error
    return result


@pytest.mark.parametrize("key", ["x", "nonsense", "dsf_abc_def_000", "sk-" + "a" * 48])
def test_unknown_key(http: httpx.Client, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": MODEL, "messages": HELLO}
    response = http.post("/chat/completions", json=body, headers=headers)
    assert_error(response, 401, "invalid_api_key")


def test_the_admin_key_is_no_customer_key(http: httpx.Client, up: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    body = {"model": MODEL, "messages": HELLO}
    assert_error(http.post("/chat/completions", json=body, headers=headers), 401, "invalid_api_key")


def test_admin_routes_are_not_on_the_gateway(http: httpx.Client, up: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    assert_error(httpx.get(f"{up['base_url']}/admin/v1/tenants", headers=headers), 404, "not_found")


def test_no_balance(http: httpx.Client, poor_key: str) -> None:
    headers = {"authorization": f"Bearer {poor_key}"}
    body = {"model": MODEL, "messages": HELLO}
    error = assert_error(
        http.post("/chat/completions", json=body, headers=headers), 402, "insufficient_balance"
    )
    assert error["type"] == "insufficient_balance"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"nul", b'{"model": }', b"\xff\xfe"])
def test_malformed_json(http: httpx.Client, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = http.post("/chat/completions", content=content, headers=headers)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "field",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": "many"},
        {"temperature": 9},
        {"top_p": 2},
        {"top_logprobs": 21, "logprobs": True},
        {"stop": ["x"] * 17},
        {"n": 2},
        {"reasoning_effort": "colossal"},
        {"thinking": {"type": "perhaps"}},
        {"stream": "yes"},
    ],
)
def test_a_field_out_of_its_domain(http: httpx.Client, field: dict[str, Any]) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 2} | field
    response = http.post("/chat/completions", json=body)
    assert response.status_code in (400, 422), response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_unknown_model(http: httpx.Client) -> None:
    response = http.post("/chat/completions", json={"model": "gpt-none", "messages": HELLO})
    assert_error(response, 404, "model_not_found")


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_beyond_the_context_tells_both_lengths(http: httpx.Client, stream: bool) -> None:
    limit = http.get(f"/models/{MODEL}").json()["context_window"]
    words = "word " * (limit + 100)
    body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "stream": stream}
    error = assert_error(http.post("/chat/completions", json=body), 400, "context_length_exceeded")
    assert str(limit) in error["message"]
    assert any(int(n) > limit for n in error["message"].split() if n.isdigit())


def test_the_client_maps_errors_to_its_own_types(up: dict[str, Any]) -> None:
    client = openai.OpenAI(base_url=up["base_url"], api_key="dsf_no", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    known = openai.OpenAI(base_url=up["base_url"], api_key=up["api_key"], max_retries=0)
    with pytest.raises(openai.NotFoundError):
        known.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])


def test_balance_in_deepseeks_shape(http: httpx.Client) -> None:
    balance = http.get("/user/balance").raise_for_status().json()
    assert balance["is_available"] is True
    (info,) = balance["balance_infos"]
    assert info["currency"] == "USD"
    assert float(info["total_balance"]) == float(info["granted_balance"]) + float(
        info["topped_up_balance"]
    )
