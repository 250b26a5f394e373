"""Engines driven without an event loop, and the processes of a group."""

import os
import threading
from pathlib import Path

from worker.batch import TokenLogprob
from worker.engine.client import Engine
from worker.request import Request
from worker.scheduler import Progress


class Driver:
    """Starts an engine and waits for what it answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.crash: Exception | None = None
        self.logprobs: dict[str, list[TokenLogprob]] = {}
        self._ended: set[str] = set()
        self._news = threading.Condition()
        engine.start(self._on_progress, self._on_crash)

    def run(self, requests: list[Request]) -> list[Request]:
        """Submit them at once, and wait until all have ended."""
        for request in requests:
            self.engine.submit(request)
        self.wait({r.request_id for r in requests})
        return requests

    def wait(self, names: set[str], seconds: float = 60) -> None:
        """Until these have ended, or the engine has crashed."""
        with self._news:
            assert self._news.wait_for(lambda: names <= self._ended or self.crash, seconds)

    def wait_for_token(self, name: str, seconds: float = 60) -> None:
        """Until this request has one, or the engine has crashed."""
        with self._news:
            assert self._news.wait_for(lambda: name in self.logprobs or self.crash, seconds)

    def _on_progress(self, progress: list[Progress]) -> None:
        with self._news:
            for p in progress:
                if p.token is not None:
                    self.logprobs.setdefault(p.request.request_id, []).append(p.token)
                if p.finish_reason is not None:
                    self._ended.add(p.request.request_id)
            self._news.notify_all()

    def _on_crash(self, error: Exception) -> None:
        with self._news:
            self.crash = error
            self._news.notify_all()


def rank_pids(parent: int | None = None) -> list[int]:
    """The ranks' processes that `parent`, or this process, has started, in order of rank."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if is_rank(pid) and _parent(pid) == (parent or os.getpid()))


def is_rank(pid: int) -> bool:
    """Whether the process lives, and is a rank."""
    try:
        return b"worker.engine.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return -1
