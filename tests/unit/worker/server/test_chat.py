import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from support.polling import until

MODEL = "deepseek-v4-flash"
HELLO = [{"role": "user", "content": "Hello"}]
LONG = [{"role": "user", "content": " ".join(f"word{i}" for i in range(900))}]
NO_THINKING = {"thinking": {"type": "disabled"}}
GREEDY = {"model": MODEL, "max_tokens": 8, "temperature": 0, **NO_THINKING}


def chat(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json={**GREEDY, "messages": HELLO, **fields})
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def stream(http: httpx.Client, **fields: Any) -> list[str]:
    """The data lines of a streamed answer."""
    body = {**GREEDY, "messages": HELLO, "stream": True, **fields}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith(("data: ", ": ")) for line in lines)
    return [line.removeprefix("data: ") for line in lines if not line.startswith(":")]


def running(http: httpx.Client) -> int:
    count: int = http.get("/health").json()["running"]
    return count


def test_whole_answer(http: httpx.Client) -> None:
    document = chat(http)
    assert document["object"] == "chat.completion"
    assert document["id"].startswith("chatcmpl-")
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 8


def test_streamed_answer_equals_the_whole_one(http: httpx.Client) -> None:
    whole = chat(http, seed=3, temperature=1)["choices"][0]["message"]["content"]
    lines = stream(http, seed=3, temperature=1)
    assert lines.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d.get("content") or "" for d in deltas) == whole


def test_every_chunk_has_cumulative_usage(http: httpx.Client) -> None:
    lines = stream(http, messages=LONG, stream_options={"include_usage": True})
    chunks = [json.loads(line) for line in lines[:-1]]
    usages = [chunk["usage"] for chunk in chunks]
    assert usages[0]["completion_tokens"] == 0
    assert usages[-1]["completion_tokens"] == 8
    counts = [u["completion_tokens"] for u in usages]
    assert counts == sorted(counts)
    for u in usages:
        assert u["prompt_tokens"] == usages[0]["prompt_tokens"]
        assert u["prompt_cache_hit_tokens"] + u["prompt_cache_miss_tokens"] == u["prompt_tokens"]
        assert u["prompt_tokens_details"]["cached_tokens"] == u["prompt_cache_hit_tokens"]
        assert u["completion_tokens_details"]["reasoning_tokens"] <= u["completion_tokens"]
    assert chunks[-1]["choices"] == []
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_repeated_prompt_reports_hits_under_the_same_salt_only(http: httpx.Client) -> None:
    def hits(salt: str) -> int:
        document = chat(http, messages=[{"role": "system", "content": "x"}, *LONG], cache_salt=salt)
        count: int = document["usage"]["prompt_cache_hit_tokens"]
        return count

    assert hits("one") == 0
    first_hits = hits("one")
    assert first_hits >= 1536
    assert hits("two") == 0
    assert hits("one") == first_hits


def test_thinking_counts_reasoning(http: httpx.Client) -> None:
    document = chat(http, thinking={"type": "enabled"})
    assert document["choices"][0]["message"]["reasoning_content"]
    assert document["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_reads_both_spellings_of_the_limit(http: httpx.Client, field: str) -> None:
    body = {k: v for k, v in GREEDY.items() if k != "max_tokens"}
    response = http.post("/v1/chat/completions", json={**body, "messages": HELLO, field: 3})
    assert response.json()["usage"]["completion_tokens"] == 3


def test_logprobs(http: httpx.Client) -> None:
    document = chat(http, logprobs=True, top_logprobs=3, max_tokens=4)
    listed = document["choices"][0]["logprobs"]["content"]
    assert len(listed) == 4
    for token in listed:
        assert token["logprob"] == token["top_logprobs"][0]["logprob"]
        assert len(token["top_logprobs"]) == 3


def test_stop_string_stops_and_is_not_shown(http: httpx.Client) -> None:
    text = chat(http)["choices"][0]["message"]["content"]
    middle = text[len(text) // 2 :][:2]
    stopped = chat(http, stop=middle)
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["choices"][0]["message"]["content"] == text[: text.index(middle)]
    assert stopped["usage"]["completion_tokens"] <= 8


def test_banned_tokens_do_not_appear(http: httpx.Client) -> None:
    first = chat(http, logprobs=True, max_tokens=1)["choices"][0]["logprobs"]["content"][0]
    ids = http.post("/tokenize", json={"prompt": first["token"]}).json()["tokens"]
    again = chat(http, logprobs=True, max_tokens=1, logit_bias={str(i): -100 for i in ids})
    assert again["choices"][0]["logprobs"]["content"][0]["token"] != first["token"]


def test_keep_alive_while_the_prompt_is_computed(http: httpx.Client) -> None:
    words = " ".join(f"alive{i}" for i in range(2500))
    body = {**GREEDY, "messages": [{"role": "user", "content": words}], "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert next(response.iter_lines()) == ": keep-alive"


@pytest.mark.parametrize("streamed", [True, False])
def test_disconnect_aborts(http: httpx.Client, base_url: str, streamed: bool) -> None:
    body = {**GREEDY, "messages": HELLO, "stream": streamed, "max_tokens": 8000, "ignore_eos": True}
    with httpx.Client(base_url=base_url) as leaving:
        request = leaving.build_request("POST", "/v1/chat/completions", json=body)
        if streamed:
            next(leaving.send(request, stream=True).iter_lines())
        else:
            request.extensions["timeout"] = {"read": 0.3, "connect": 5, "write": 5, "pool": 5}
            with pytest.raises(httpx.ReadTimeout):
                leaving.send(request)
    until(lambda: running(http) == 0, seconds=3, what="the generation is aborted")


async def test_storm_of_disconnects_leaves_nothing(base_url: str, http: httpx.Client) -> None:
    async def impatient(i: int) -> int:
        words = " ".join(f"s{i % 5}-{j}" for j in range(40 * (i % 7)))
        body = {**GREEDY, "messages": [{"role": "user", "content": words}], "stream": True}
        body |= {"max_tokens": 200, "ignore_eos": True, "cache_salt": str(i % 2)}
        async with (
            httpx.AsyncClient(base_url=base_url, timeout=60) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            lines = response.aiter_lines()
            for _ in range(i % 9):
                await anext(lines, None)
            return response.status_code

    statuses = await asyncio.gather(*(impatient(i) for i in range(60)))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 24  # eight run, sixteen wait, others may be told to come back


def test_the_openai_client_reads_it(base_url: str, http: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0)
    whole = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=5, extra_body=NO_THINKING
    )
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    client.close()
