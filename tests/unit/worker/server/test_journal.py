"""The journal behind the wire: a row before the first token, another before the end."""

import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.polling import until
from support.scripted_engine import MODEL, Script, scripted
from support.tiny_disk import tiny_disk
from support.usage_rows import usage_row
from support.wire import chunks, token_ids
from support.worker_process import worker
from support.worker_server import healthy, served

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.server.journal import Journal
from worker.server.journal_store import JournalStore

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BODY = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}
TEXT = [100, 200, 300, 400, 500, 600]
ENDLESS = {**BODY, "max_tokens": 4000, "stream": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def script() -> Script:
    return Script(prompt_tokens=3, token_ids=TEXT * 600)


@pytest.fixture
def http(
    path: Path, script: Script, tokenizer: Tokenizer, chat_encoding: ChatEncoding
) -> Iterator[httpx.Client]:
    """A worker that says `TEXT` again and again, with a journal."""
    serving = scripted(script, tokenizer, chat_encoding)
    serving = replace(serving, journal=Journal(JournalStore(path), keep_hours=72))
    with served(serving) as url, httpx.Client(base_url=url, timeout=30) as client:
        try:
            yield client
        finally:
            script.going_on.set()


def attempts(http: httpx.Client, request_id: str) -> list[dict[str, Any]]:
    response = http.get(f"/usage/{request_id}")
    if response.status_code == 404:
        assert response.json()["error"]["code"] == "usage_not_found"
        return []
    document = response.json()
    assert document["request_id"] == request_id
    rows: list[dict[str, Any]] = document["attempts"]
    return rows


def ended(http: httpx.Client, request_id: str) -> dict[str, Any]:
    """The one attempt at a request, once it has ended."""
    (row,) = until(
        lambda: [a for a in attempts(http, request_id) if a["ended_us"]], seconds=5, what="an end"
    )
    assert row["prompt_cache_hit_tokens"] + row["prompt_cache_miss_tokens"] == row["prompt_tokens"]
    assert row["ended_us"] > row["started_us"] > 1.6e15
    return row


def read(response: httpx.Response, count: int) -> Generator[str, None, None]:
    """Read `count` events; the rest is in what is returned, whose end closes the connection."""
    lines = (line for line in response.iter_lines() if line)
    for _ in range(count):
        assert next(lines).startswith("data: ")
    return lines


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_recorded_before_it_ends(http: httpx.Client, stream: bool) -> None:
    response = http.post(
        COMPLETIONS, json={**BODY, "stream": stream}, headers={"x-request-id": "mine"}
    )
    (row,) = attempts(http, "mine")
    assert row["attempt_id"] in response.text
    assert row["ended_us"] > row["started_us"]
    told = {k: row[k] for k in ("model", "prompt_tokens", "completion_tokens", "finish_reason")}
    assert told == {
        "model": MODEL,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "finish_reason": "length",
    }


def test_reasoning_hits_and_resumed_tokens(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    body["return_token_ids"] = True
    known = token_ids(chunks(http, CHAT, body))[:2]
    headers = {"x-request-id": "again"}
    http.post(CHAT, json={**body, "resume_token_ids": known}, headers=headers)
    row = ended(http, "again")
    assert [row[k] for k in ("completion_tokens", "reasoning_tokens", "resumed_tokens")] == [
        4,
        4,
        2,
    ]


def test_choices_are_summed(http: httpx.Client) -> None:
    http.post(COMPLETIONS, json={**BODY, "n": 3}, headers={"x-request-id": "three"})
    row = ended(http, "three")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (3, 12)


def test_a_running_request_is_seen_and_its_leaving_recorded(
    http: httpx.Client, script: Script
) -> None:
    script.pause_at = 5
    headers = {"x-request-id": "leaving"}
    with http.stream("POST", COMPLETIONS, json=ENDLESS, headers=headers) as response:
        lines = read(response, 5)
        (row,) = attempts(http, "leaving")
        assert (row["finish_reason"], row["ended_us"]) == ("running", None)
        assert row["completion_tokens"] == 5
        lines.close()
    row = ended(http, "leaving")
    assert (row["finish_reason"], row["completion_tokens"]) == ("aborted", 5)
    script.going_on.set()


def test_pages_in_order_of_their_ends(http: httpx.Client) -> None:
    for i in range(5):
        http.post(COMPLETIONS, json=BODY, headers={"x-request-id": f"r{i}"})
    seen, after = [], 0
    while True:
        page = http.get("/usage", params={"after": after, "limit": 2}).json()
        if not page["attempts"]:
            break
        seen += [row["request_id"] for row in page["attempts"]]
        after = page["next"]
    assert seen == [f"r{i}" for i in range(5)]
    assert page["next"] == after


@pytest.mark.parametrize(
    ("query", "status"),
    [("after=x", 400), ("limit=0", 422), ("limit=1001", 422), ("after=-1", 400)],
)
def test_bad_cursors(http: httpx.Client, query: str, status: int) -> None:
    response = http.get(f"/usage?{query}")
    assert response.status_code == status
    assert response.json()["error"]["param"] in query


def test_a_full_disk_refuses_what_is_new_and_loses_nothing(
    http: httpx.Client, script: Script, path: Path
) -> None:
    script.pause_at = 5
    headers = {"x-request-id": "running"}
    body = {**ENDLESS, "max_tokens": 200}
    with http.stream("POST", COMPLETIONS, json=body, headers=headers) as response:
        lines = read(response, 5)
        with tiny_disk(path.with_name("usage.db-wal").stat().st_size):
            refused = http.post(COMPLETIONS, json=BODY, headers={"x-request-id": "refused"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "journal_unavailable"
            assert refused.headers["retry-after"]
            health = http.get("/health")
            assert (health.status_code, health.json()["error"]["code"]) == (
                503,
                "journal_unavailable",
            )
            script.going_on.set()
            assert list(lines)[-1] == "data: [DONE]"
        until(lambda: http.get("/health").status_code == 200, seconds=5, what="service resumes")
    row = ended(http, "running")
    assert (row["finish_reason"], row["completion_tokens"]) == ("length", 200)
    assert attempts(http, "refused") == []
    assert http.post(COMPLETIONS, json=BODY).status_code == 200


def test_what_ended_long_ago_is_forgotten(
    path: Path, tokenizer: Tokenizer, chat_encoding: ChatEncoding
) -> None:
    store = JournalStore(path)
    store.write([], [usage_row("old", "old")])
    assert [row["attempt_id"] for row in store.find("old")] == ["old"]
    time.sleep(0.01)  # zero hours ago is after its end
    serving = replace(
        scripted(Script(), tokenizer, chat_encoding), journal=Journal(store, keep_hours=0.0)
    )
    with served(serving) as url, httpx.Client(base_url=url) as client:
        until(lambda: not attempts(client, "old"), seconds=5, what="the row is pruned")


def test_without_a_journal(tokenizer: Tokenizer, chat_encoding: ChatEncoding) -> None:
    with served(scripted(Script(), tokenizer, chat_encoding)) as url:
        response = httpx.get(f"{url}/usage/x")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "usage_not_found")


def test_a_killed_worker_leaves_its_last_known_counts(tiny_directory: Path, path: Path) -> None:
    with worker(tiny_directory, "--journal", str(path)) as (process, url):
        until(lambda: healthy(url), seconds=60, what="the worker is healthy")
        headers = {"x-request-id": "cut"}
        body = {**ENDLESS, "ignore_eos": True}
        with httpx.stream("POST", f"{url}{COMPLETIONS}", json=body, headers=headers) as response:
            lines = read(response, 5)
            process.send_signal(signal.SIGKILL)
            process.wait()
            lines.close()
    store = JournalStore(path)
    (row,) = store.find("cut")
    assert row["finish_reason"] == "interrupted"
    assert [r["attempt_id"] for r in store.ended_after(0, 10)] == [row["attempt_id"]]
    store.close()
