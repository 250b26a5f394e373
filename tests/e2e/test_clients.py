"""The official clients against the whole product: what a customer sees on the first day."""

import uuid
from typing import Any

import httpx
import openai
import pytest
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from support.polling import until

MODEL = "deepseek-v4-flash"
HIT_RATE_P, MISS_RATE_P, OUTPUT_RATE_P = 2_800, 140_000, 280_000


@pytest.fixture(params=["", "/v1"])
def client(up: dict[str, Any], request: pytest.FixtureRequest) -> openai.OpenAI:
    url = up["base_url"] + request.param
    return openai.OpenAI(base_url=url, api_key=up["api_key"], max_retries=0)


def thinking(enabled: bool) -> dict[str, Any]:
    return {"thinking": {"type": "enabled" if enabled else "disabled"}}


def cost_p(usage: Any) -> int:
    return (
        usage.prompt_cache_hit_tokens * HIT_RATE_P
        + usage.prompt_cache_miss_tokens * MISS_RATE_P
        + usage.completion_tokens * OUTPUT_RATE_P
    )


@pytest.mark.parametrize("enabled", [True, False])
def test_buffered_completion(client: openai.OpenAI, enabled: bool) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=12,
        extra_body=thinking(enabled),
    )
    usage = completion.usage
    assert usage is not None
    assert completion.choices[0].finish_reason in ("length", "stop", "tool_calls")
    assert 1 <= usage.completion_tokens <= 12
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_cache_hit_tokens
    assert usage.completion_tokens_details.reasoning_tokens <= usage.completion_tokens
    if not enabled:
        assert usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_streamed_completion_tells_usage_once(client: openai.OpenAI, enabled: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=thinking(enabled),
        )
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert 1 <= chunks[-1].usage.completion_tokens <= 12
    reasons = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason]
    assert len(reasons) == 1


def test_stream_equals_buffered(client: openai.OpenAI) -> None:
    request: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Repeat after me: {uuid.uuid4()}"}],
        "max_tokens": 16,
        "temperature": 0,
        "extra_body": thinking(False),
    }
    buffered = client.chat.completions.create(**request).choices[0].message.content or ""
    stream = client.chat.completions.create(**request, stream=True)
    streamed = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert streamed == buffered


def test_repeated_long_prompt_hits_the_cache_and_costs_the_exact_difference(
    up: dict[str, Any], client: openai.OpenAI
) -> None:
    text = f"{uuid.uuid4()} " + "the quick brown fox jumps over the lazy dog " * 225
    usages, receipts = [], []
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=8,
            temperature=0,
            extra_body=thinking(False),
        )
        usages.append(raw.parse().usage)
        receipts.append(raw.headers["x-request-id"])
    first, second = usages
    assert first.prompt_tokens == second.prompt_tokens >= 2_000
    assert first.prompt_cache_hit_tokens == 0
    assert second.prompt_cache_hit_tokens >= 1_500
    assert first.completion_tokens == second.completion_tokens
    saved = second.prompt_cache_hit_tokens * (MISS_RATE_P - HIT_RATE_P)
    assert cost_p(first) - cost_p(second) == saved
    charges = [_settled_charge_p(up, request_id) for request_id in receipts]
    assert charges == [cost_p(first), cost_p(second)]


def test_a_prefix_is_shared_within_a_tenant_and_with_nobody_else(
    up: dict[str, Any], client: openai.OpenAI
) -> None:
    text = f"{uuid.uuid4()} " + "the quick brown fox jumps over the lazy dog " * 100

    def hits(who: openai.OpenAI, salt: str) -> int:
        usage = who.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=1,
            extra_body={**thinking(False), "cache_salt": salt},
        ).usage
        assert usage is not None
        return usage.prompt_cache_hit_tokens

    other = openai.OpenAI(base_url=up["base_url"], api_key=_key_of_another_tenant(up))
    assert hits(client, "a") == 0
    assert hits(other, "a") == 0
    assert hits(client, "b") > 0
    assert hits(other, "b") > 0


def test_langchain_openai_counts_a_stream_right(up: dict[str, Any]) -> None:
    model = ChatOpenAI(
        model=MODEL,
        base_url=up["base_url"],
        api_key=SecretStr(up["api_key"]),
        max_completion_tokens=10,
        stream_usage=True,
        max_retries=0,
    )
    _assert_stream_usage(model)


def test_langchain_deepseek_counts_a_stream_right(up: dict[str, Any]) -> None:
    model = ChatDeepSeek(
        model=MODEL,
        base_url=up["base_url"],
        api_key=SecretStr(up["api_key"]),
        max_tokens=10,
        max_retries=0,
    )
    _assert_stream_usage(model)


def _assert_stream_usage(model: Any) -> None:
    message = None
    for chunk in model.stream("Count to five"):
        message = chunk if message is None else message + chunk
    usage = message.usage_metadata
    assert usage is not None
    alone = model.invoke("Count to five").usage_metadata
    assert usage["input_tokens"] == alone["input_tokens"]
    assert 1 <= usage["output_tokens"] <= 10
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def _key_of_another_tenant(up: dict[str, Any]) -> str:
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    with httpx.Client(base_url=f"{up['admin_url']}/admin/v1", headers=headers) as admin:
        name = f"other-{uuid.uuid4()}"
        tenant = admin.post("/tenants", json={"name": name}).raise_for_status().json()
        money = {"amount_usd": "1.00", "reason": "test"}
        admin.post(f"/tenants/{tenant['id']}/top-ups", json=money).raise_for_status()
        key = admin.post(f"/tenants/{tenant['id']}/keys", json={"name": "k"}).raise_for_status()
        return str(key.json()["key"])


def _settled_charge_p(up: dict[str, Any], request_id: str) -> int:
    """The receipt's charge, waited for: settlement follows the answer within seconds."""
    url = f"{up['base_url']}/v1/account/usage/{request_id}"
    with httpx.Client(headers={"authorization": f"Bearer {up['api_key']}"}) as http:

        def receipt() -> dict[str, Any] | None:
            response = http.get(url)
            return response.json() if response.status_code == 200 else None

        return int(until(receipt, seconds=5, what=f"{request_id} settled")["charge_p"])
