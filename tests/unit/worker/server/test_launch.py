"""The worker as a process: start, drain, deadline, and how it fails."""

import json
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from support.polling import until
from support.worker_process import worker
from support.worker_server import healthy

from worker.batch import Batch, SequenceOutput, TokenLogprob
from worker.cache.manager import CacheManager
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore
from worker.errors import ConfigError, EngineCrashed
from worker.metrics import EngineMetrics
from worker.scheduler import Scheduler
from worker.server.generation import Serving
from worker.server.launch import bind, run
from worker.server.openai import Limits

ENDLESS = {
    "model": "deepseek-v4-flash",
    "prompt": [5],
    "max_tokens": 30_000,
    "ignore_eos": True,
    "stream": True,
}


def test_drains_on_sigterm_then_ends_what_is_left(tiny_directory: Path) -> None:
    with worker(tiny_directory, "--drain-seconds", "1") as (process, url):
        until(lambda: healthy(url), seconds=60, what="the worker is healthy")
        named = {"x-request-id": "my-name"}
        with httpx.stream(
            "POST", f"{url}/v1/completions", json=ENDLESS, headers=named, timeout=30
        ) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert len(rest) > 10, "the stream went on while draining"
        assert '"code":"shutting_down"' in rest[-1]
        assert "data: [DONE]" not in rest
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr.read().splitlines()]
        (ended,) = [line for line in log if line.get("request_id") == "my-name"]
        assert (ended["finish_reason"], ended["prompt_tokens"]) == ("error", 1)


def test_taken_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"port \d+: Address already in use; .* --port"):
            bind("127.0.0.1", taken.getsockname()[1])


class BreakingRunner:
    """Works until `broken` is set."""

    def __init__(self) -> None:
        self.broken = threading.Event()

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        if self.broken.is_set():
            raise RuntimeError("device lost")
        return [SequenceOutput(s.request_id, [TokenLogprob(5, -1.0)]) for s in batch.sequences]


def test_crash_of_the_engine_ends_the_process(
    tokenizer: Tokenizer, chat_encoding: ChatEncoding
) -> None:
    runner, metrics = BreakingRunner(), EngineMetrics("m")
    cache = CacheManager(pages=200, state_slots=4, snapshots=4, page_tokens=256)
    scheduler = Scheduler(cache, max_sequences=4, max_batch_tokens=64, max_model_len=50_000)
    serving = Serving(
        EngineClient(EngineCore(scheduler, runner, metrics), max_requests=8),
        tokenizer,
        chat_encoding,
        Limits("deepseek-v4-flash", 50_000, tokenizer.vocab_size, 1),
        metrics,
    )
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            run(serving, listener, drain_seconds=5)
        except EngineCrashed as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    until(lambda: healthy(url), seconds=20, what="the worker is healthy")
    with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        runner.broken.set()
        last = [line for line in lines if line][-1]
    thread.join(timeout=20)
    assert '"code":"engine_failed"' in last
    assert raised


def test_a_key_in_the_environment_is_asked_for(
    tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHPLANE_ENGINE_TOKEN", "k3y")
    with worker(tiny_directory) as (_, url):
        until(lambda: healthy(url), seconds=60, what="the worker is healthy")
        assert httpx.get(f"{url}/v1/models").status_code == 401
        shown = {"authorization": "Bearer k3y"}
        assert httpx.get(f"{url}/v1/models", headers=shown).status_code == 200
