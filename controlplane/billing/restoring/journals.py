"""Reads all journals that are left: gateways' folders and engines' SQLite files. Called by
`restore`.

A folder is a gateway's journal folder as it was left: live epochs, those that were kept, and those
that a gateway found in the wrong database, as it does after a dump came back.
"""

import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.errors import StartupError
from controlplane.usage.kept import FOLDER
from controlplane.usage.recovery import FOREIGN
from controlplane.usage.segments import Damage, read
from controlplane.usage.traces import Trace

_ATTEMPTS = """
    SELECT attempt_id, request_id, model, started_us, coalesce(ended_us, started_us),
           prompt_cache_hit_tokens, prompt_cache_miss_tokens, completion_tokens, reasoning_tokens,
           finish_reason
    FROM attempts ORDER BY started_us, attempt_id
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A request as a gateway's journal tells it, and the gateway's life it ran in."""

    trace: Trace
    epoch_id: uuid.UUID

    @property
    def ended_at_us(self) -> int:
        """When it ended; of one that was cut off, the last that is known."""
        trace = self.trace
        return trace.finished_at_us or trace.first_token_at_us or trace.opened.started_at_us


@dataclass(slots=True)
class Journals:
    """What gateways' journals tell: requests in the order of their ends."""

    told: list[Told] = field(default_factory=list)
    epoch_ids: list[uuid.UUID] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)


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


def gateways(folders: Iterable[Path]) -> Journals:
    """Read gateways' journal folders, all epochs in them. Their owners must not run."""
    parts: dict[uuid.UUID, list[Path]] = defaultdict(list)
    for folder in folders:
        for epoch_id, path in _epochs(folder):
            parts[epoch_id].append(path)
    found = Journals(epoch_ids=sorted(parts))
    for epoch_id in found.epoch_ids:
        replay = read(*parts[epoch_id])
        found.told += (Told(trace, epoch_id) for trace in replay.traces.values())
        found.damages += replay.damages
    found.told.sort(key=lambda it: (it.ended_at_us, it.trace.opened.request_id))
    return found


def _epochs(folder: Path) -> Iterator[tuple[uuid.UUID, Path]]:
    for path in sorted((*folder.iterdir(), *folder.glob(f"{FOLDER}/*"))):
        try:
            yield uuid.UUID(path.name.removeprefix(FOREIGN)), path
        except ValueError:
            continue


def engines(files: Sequence[Path]) -> Iterator[Attempt]:
    """Read engines' journals, the first attempt at a request first; named by their files.

    Raises:
        StartupError: a file is not an engine's journal.
    """
    for path in files:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
                for attempt_id, request_id, *rest in file.execute(_ATTEMPTS):
                    try:
                        known_as = uuid.UUID(request_id)
                    except ValueError:  # no gateway of ours asked for it
                        continue
                    yield Attempt(path.name, attempt_id, known_as, *rest)
        except sqlite3.Error as error:
            raise StartupError(f"{path} cannot be read as an engine's journal: {error}.") from error
