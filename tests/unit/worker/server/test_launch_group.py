"""`serve --ep-size 2`: one port, the answers of one rank, and one end for all."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import httpx
from support.polling import until
from support.ports import free_port
from support.rank_group import is_rank, rank_pids
from support.structured import ASK, NO_THINKING, SCHEMAS, json_schema
from support.worker_server import healthy

MODEL = "deepseek-v4-flash"
ENDLESS = {"model": MODEL, "prompt": [5], "max_tokens": 30_000, "ignore_eos": True, "stream": True}
CHATS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "max_tokens": 12},
    "seeded": {"temperature": 1, "seed": 7, "max_tokens": 12, "logprobs": True},
    "structured": {
        "temperature": 1,
        "seed": 3,
        "max_tokens": 200,
        "response_format": json_schema(SCHEMAS["choice"]),
        **NO_THINKING,
    },
}


@contextmanager
def group_worker(
    directory: Path, drain_seconds: int = 1
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A healthy worker of two ranks and its base URL; killed at the end if still there."""
    port = free_port()
    command = [
        *(sys.executable, "-c", "from worker.cli import app; app()", "serve", str(directory)),
        *("--port", str(port), "--threads", "1", "--ep-size", "2"),
        *("--drain-seconds", str(drain_seconds)),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: healthy(url), seconds=60, what="the worker is healthy")
        yield process, url
    finally:
        process.kill()
        process.communicate()


def told(answer: dict[str, Any]) -> list[Any]:
    """What an answer says, whoever gave it: log-probabilities to four places."""
    said = []
    for choice in answer["choices"]:
        listed = (choice["logprobs"] or {}).get("content") or []
        numbers = [(token["token"], round(token["logprob"], 4)) for token in listed]
        said += [choice["message"], choice["finish_reason"], numbers]
    return [*said, answer["usage"]]


def test_answers_are_those_of_one_rank_until_sigterm_ends_all(
    tiny_directory: Path, base_url: str
) -> None:
    with group_worker(tiny_directory) as (process, url):
        pids = rank_pids(process.pid)
        assert len(pids) == 2
        for fields in CHATS.values():
            body = {"model": MODEL, "messages": ASK, **fields}
            ours, theirs = (
                httpx.post(f"{base}/v1/chat/completions", json=body, timeout=60).json()
                for base in (url, base_url)
            )
            assert told(ours) == told(theirs)
        with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            os.killpg(process.pid, signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert '"code":"shutting_down"' in rest[-1]
        assert process.wait(timeout=20) == 0
        assert not any(map(is_rank, pids))


def test_a_killed_rank_ends_stream_and_process_saying_so(tiny_directory: Path) -> None:
    with group_worker(tiny_directory, drain_seconds=60) as (process, url), socket() as slow:
        pids = rank_pids(process.pid)
        slow.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        slow.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            os.kill(pids[1], signal.SIGKILL)
            last = [line for line in lines if line][-1]
        assert '"code":"engine_failed"' in last
        assert process.wait(timeout=20) == 1
        assert not any(map(is_rank, pids))
        assert process.stderr is not None
        *log, verdict = process.stderr.read().splitlines()
        reason = "rank 1: killed by SIGKILL"
        assert verdict == f"flashplane-worker: {reason}"
        messages = [json.loads(line)["message"] for line in log]
        assert messages.count(f"{reason}; all ranks end with it") == 1
