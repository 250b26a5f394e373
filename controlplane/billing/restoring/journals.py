"""Reads all journals that are left: gateways' folders and engines' SQLite files. Called by
`restore`.

A folder is a gateway's journal folder as it was left: live epochs, those that were kept, and those
that a gateway found in the wrong database, as it does after a dump came back.
"""

import re
import sqlite3
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from itertools import groupby
from pathlib import Path

from controlplane.errors import StartupError
from controlplane.usage.kept import FOLDER
from controlplane.usage.recovery import FOREIGN
from controlplane.usage.segments import Damage, ends
from controlplane.usage.traces import Trace

_ATTEMPTS = """
    SELECT attempt_id, request_id, model, started_us, coalesce(ended_us, started_us),
           prompt_cache_hit_tokens, prompt_cache_miss_tokens, completion_tokens, reasoning_tokens,
           finish_reason
    FROM attempts ORDER BY request_id, started_us, attempt_id
"""
# In the order of such texts their requests are in the order of their ids.
_AS_WE_WRITE_IT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Told:
    """A request as a gateway's journal tells it, and the gateway's life it ran in.

    `ended_at_us` is when it ended, or the last that is known; never before those that its journal
    tells earlier.
    """

    trace: Trace
    epoch_id: uuid.UUID
    ended_at_us: int


class Journals:
    """Gateways' journal folders, all epochs in them. Their owners must not run.

    `damages` is complete when all is `told`.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders: dict[uuid.UUID, list[Path]] = defaultdict(list)
        for folder in folders:
            for epoch_id, path in _epochs(folder):
                self._folders[epoch_id].append(path)
        self.epoch_ids = sorted(self._folders)
        self.damages: list[Damage] = []

    def told(self) -> Iterator[Told]:
        """Yield the requests of all lives in the order of their ends.

        A life's journal is opened when the others have come to its beginning and closed at its
        end, so what is open and in memory is of lives that overlap.
        """
        waiting = deque(self.epoch_ids)
        heads: list[tuple[int, uuid.UUID, Told, Iterator[Told]]] = []
        while waiting or heads:
            while waiting and (not heads or _began_at_us(waiting[0]) <= heads[0][0]):
                _push(heads, self._life(waiting.popleft()))
            if heads:
                *_, told, life = heappop(heads)
                yield told
                _push(heads, life)

    def _life(self, epoch_id: uuid.UUID) -> Iterator[Told]:
        latest_us = 0
        for trace in ends(*self._folders[epoch_id], damages=self.damages):
            at_us = trace.finished_at_us or trace.first_token_at_us or trace.opened.started_at_us
            latest_us = max(latest_us, at_us)
            yield Told(trace, epoch_id, latest_us)


def _push(heads: list[tuple[int, uuid.UUID, Told, Iterator[Told]]], life: Iterator[Told]) -> None:
    told = next(life, None)
    if told is not None:
        # Of two of the same moment the epochs' ids decide: each is in here once.
        heappush(heads, (told.ended_at_us, told.epoch_id, told, life))


def _began_at_us(epoch_id: uuid.UUID) -> int:
    return (epoch_id.int >> 80) * 1000  # a UUIDv7 begins with its milliseconds


@dataclass(frozen=True, slots=True)
class Attempt:
    """An engine's word on one attempt at a request; times in µs since 1970 UTC."""

    replica: str
    attempt_id: str
    request_id: uuid.UUID
    model: str
    started_us: int
    ended_us: int
    hit_tokens: int
    miss_tokens: int
    output_tokens: int
    reasoning_tokens: int
    finish_reason: str


def _epochs(folder: Path) -> Iterator[tuple[uuid.UUID, Path]]:
    for path in sorted((*folder.iterdir(), *folder.glob(f"{FOLDER}/*"))):
        try:
            yield uuid.UUID(path.name.removeprefix(FOREIGN)), path
        except ValueError:
            continue


def engines(files: Sequence[Path]) -> Iterator[list[Attempt]]:
    """Yield the attempts at each request that engines' journals tell of, named by their files.

    Raises:
        StartupError: a file is not an engine's journal.
    """
    attempts = merge(*map(_attempts, files), key=_request_of)
    for _, those in groupby(attempts, key=_request_of):
        yield list(those)


def _attempts(path: Path) -> Iterator[Attempt]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            for attempt_id, request_id, *rest in file.execute(_ATTEMPTS):
                # Other ids are of no gateway of ours.
                if _AS_WE_WRITE_IT.fullmatch(request_id):
                    yield Attempt(path.name, attempt_id, uuid.UUID(request_id), *rest)
    except sqlite3.Error as error:
        raise StartupError(f"{path} cannot be read as an engine's journal: {error}.") from error


def _request_of(attempt: Attempt) -> uuid.UUID:
    return attempt.request_id
