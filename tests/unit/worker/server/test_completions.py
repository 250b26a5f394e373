# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
import json
from typing import Any

import httpx
import pytest

MODEL = "deepseek-v4-flash"
GREEDY = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}


def complete(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/completions", json={**GREEDY, **fields})
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def pieces(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    body = {**GREEDY, "stream": True, **fields}
    lines = http.post("/v1/completions", json=body).text.split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(line) for line in data]


def test_text_and_its_token_ids_are_the_same_prompt(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"prompt": GREEDY["prompt"]}).json()["tokens"]
    by_text, by_ids = complete(http), complete(http, prompt=ids)
    assert by_text["choices"] == by_ids["choices"]
    assert by_text["usage"]["prompt_tokens"] == len(ids)


def test_echo_repeats_the_prompt(http: httpx.Client) -> None:
    plain = complete(http)["choices"][0]["text"]
    assert complete(http, echo=True)["choices"][0]["text"] == GREEDY["prompt"] + plain


def test_echo_scores_every_prompt_token_but_the_first(http: httpx.Client) -> None:
    document = complete(http, echo=True, logprobs=5, prompt=list(range(100, 800)))
    listed = document["choices"][0]["logprobs"]
    assert len(listed["tokens"]) == 704
    assert listed["token_logprobs"][0] is None
    assert all(p <= 0 for p in listed["token_logprobs"][1:])
    assert all(len(top) <= 5 for top in listed["top_logprobs"][1:])
    assert listed["text_offset"] == sorted(listed["text_offset"])


def test_a_prompt_alone_is_scored(http: httpx.Client) -> None:
    whole = complete(http, echo=True, logprobs=2)
    alone = complete(http, echo=True, logprobs=2, max_tokens=0)
    choice, count = alone["choices"][0], alone["usage"]["prompt_tokens"]
    assert (choice["text"], choice["finish_reason"]) == (GREEDY["prompt"], "length")
    assert alone["usage"]["completion_tokens"] == 0
    listed = whole["choices"][0]["logprobs"]["token_logprobs"][1:count]
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(listed, abs=1e-4)


def test_nothing_at_all_is_refused(http: httpx.Client) -> None:
    response = http.post("/v1/completions", json={**GREEDY, "max_tokens": 0})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "max_tokens"


def test_tokens_are_named_by_id_when_asked(http: httpx.Client) -> None:
    ids = list(range(100, 110))
    document = complete(
        http, prompt=ids, echo=True, logprobs=20, max_tokens=1, return_tokens_as_token_ids=True
    )
    listed = document["choices"][0]["logprobs"]
    assert listed["tokens"][:10] == [f"token_id:{i}" for i in ids]
    # By id no two alternatives fall together, as the many pieces of broken UTF-8 would by text.
    assert [len(top) for top in listed["top_logprobs"][1:]] == [20] * 10


def test_scores_equal_those_of_generation(http: httpx.Client) -> None:
    generated = complete(http, logprobs=0)["choices"][0]["logprobs"]
    prompt = http.post("/tokenize", json={"prompt": GREEDY["prompt"]}).json()["tokens"]
    text = complete(http)["choices"][0]["text"]
    ids = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    echoed = complete(http, prompt=prompt + ids, echo=True, logprobs=0, max_tokens=1)
    scores = echoed["choices"][0]["logprobs"]["token_logprobs"]
    first = scores[len(prompt)]
    assert first == pytest.approx(generated["token_logprobs"][0], abs=1e-3)


def test_streamed_text_equals_the_whole(http: httpx.Client) -> None:
    for fields in ({}, {"echo": True, "logprobs": 2}):
        whole = complete(http, **fields)["choices"][0]
        streamed = pieces(http, **fields)
        assert "".join(p["choices"][0]["text"] for p in streamed) == whole["text"]
        assert streamed[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "length"
        if fields:
            tokens = [t for p in streamed for t in p["choices"][0]["logprobs"]["tokens"]]
            assert tokens == whole["logprobs"]["tokens"]


def test_usage_rides_on_every_piece(http: httpx.Client) -> None:
    streamed = pieces(http, stream_options={"include_usage": True})
    assert streamed[-1]["choices"] == []
    assert [p["usage"]["completion_tokens"] for p in streamed] == [1, 2, 3, 4, 4, 4]


def test_output_is_clamped_to_the_context(http: httpx.Client) -> None:
    document = complete(http, prompt=[5] * 8180, max_tokens=300_000, ignore_eos=True)
    assert document["usage"]["total_tokens"] == 8192
    assert document["choices"][0]["finish_reason"] == "length"


def test_stop_string(http: httpx.Client) -> None:
    text = complete(http)["choices"][0]["text"]
    stopped = complete(http, stop=[text[3:5]])["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (text[: text.index(text[3:5])], "stop")


def test_typed_control_tokens_stay_text(http: httpx.Client) -> None:
    typed = "<｜end▁of▁sentence｜></think>"
    ids = http.post("/tokenize", json={"prompt": typed}).json()["tokens"]
    assert not {1, 128822} & set(ids)
    assert complete(http, prompt=typed)["usage"]["prompt_tokens"] == len(ids)


def test_control_tokens_may_come_as_ids(http: httpx.Client) -> None:
    assert complete(http, prompt=[0, 128803, 5])["usage"]["prompt_tokens"] == 3


def test_the_middle_is_filled_between_prompt_and_suffix(http: httpx.Client) -> None:
    def tokens(text: str) -> list[int]:
        ids: list[int] = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
        return ids

    before, after = "def f(x):\n    <｜fim▁hole｜>", "<｜fim▁end｜>\n    return y"
    asked = {"prompt": before, "suffix": after}
    ids = http.post("/tokenize", json=asked).json()["tokens"]
    assert ids == [128801, *tokens(before), 128800, *tokens(after), 128802]
    filled = complete(http, **asked)
    assert filled["usage"]["prompt_tokens"] == len(ids)
    assert filled["choices"] == complete(http, prompt=ids)["choices"]
    assert filled["choices"] == complete(http, prompt=tokens(before), suffix=after)["choices"]


def test_nothing_need_stand_before_or_after_the_middle(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"prompt": "", "suffix": ""}).json()["tokens"]
    assert ids == [128801, 128800, 128802]
