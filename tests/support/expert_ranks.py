"""Groups of ranks in threads of the test process: real collectives, and every rank in reach."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from support.v4 import ENGINE, Sequences

from worker.config import EngineConfig
from worker.parallel.groups import ExpertGroup, Seat, join, meeting_point
from worker.runner.model_runner import ModelRunner

T = TypeVar("T")
Chunks = dict[int, list[int]]  # token ids by state slot


class Ranks:
    """Runs one function on every rank at once."""

    def __init__(self, pool: ThreadPoolExecutor, groups: list[ExpertGroup]) -> None:
        self._pool = pool
        self.groups = groups

    def each(self, function: Callable[[ExpertGroup], T]) -> list[T]:
        """What `function` returned for each rank; raises what it raised, after all have ended."""
        futures = [self._pool.submit(function, group) for group in self.groups]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
        return [future.result() for future in futures]


@contextmanager
def ranks(size: int, timeout_seconds: float = 20.0) -> Iterator[Ranks]:
    """A group of `size` ranks."""
    store = meeting_point()
    with ThreadPoolExecutor(size) as pool:
        seats = [Seat(rank, size, store.port, timeout_seconds) for rank in range(size)]
        yield Ranks(pool, list(pool.map(lambda seat: join(seat, "cpu"), seats)))


class Models:
    """A model on every rank, with sequences of its own."""

    def __init__(self, together: Ranks, directory: Path, engine: EngineConfig = ENGINE) -> None:
        self._together = together
        runners = together.each(lambda group: ModelRunner(directory, engine, group))
        self.sequences = [Sequences(runner) for runner in runners]

    def logits(self, chunks: Sequence[Chunks]) -> list[dict[int, torch.Tensor]]:
        """One forward of all ranks: for each rank, the logits of every row of its chunks; a rank
        without chunks steps along."""

        def run(group: ExpertGroup) -> dict[int, torch.Tensor]:
            sequences = self.sequences[group.rank]
            if chunks[group.rank]:
                return sequences.logits(chunks[group.rank])
            with torch.inference_mode():
                sequences.runner.model.step_along()
            return {}

        return self._together.each(run)
