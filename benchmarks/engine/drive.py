"""Runs requests through scheduler and runner as the engine's step loop does, without its thread."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.batch import Batch, SequenceOutput
from worker.config import EngineConfig, ModelConfig
from worker.engine.build import build_scheduler
from worker.request import Request, SamplingParams


@dataclass
class Drive:
    """An engine whose steps are taken by the caller. Every `run` starts with an idle scheduler and
    finds the prefixes that earlier runs have computed under the same salt."""

    config: ModelConfig
    engine: EngineConfig
    execute: Callable[[Batch], list[SequenceOutput]]

    def __post_init__(self) -> None:
        self.scheduler = build_scheduler(self.config, self.engine, revision="benchmark")

    def run(self, requests: Sequence[Request]) -> dict[str, float]:
        """Run all to their ends; seconds until each one's first token."""
        begin = time.perf_counter()
        first: dict[str, float] = {}
        for request in requests:
            self.scheduler.add(request)
        while (batch := self.scheduler.schedule()) is not None:
            for progress in self.scheduler.update(self.execute(batch)):
                assert progress.error is None, progress.error
                if progress.token is not None:
                    first.setdefault(progress.request.request_id, time.perf_counter() - begin)
        return first


def greedy(name: str, prompt: list[int], max_tokens: int, salt: bytes = b"") -> Request:
    """A request that runs to `max_tokens`, whatever it says."""
    return Request(name, prompt, SamplingParams(max_tokens, temperature=0.0), cache_salt=salt)
