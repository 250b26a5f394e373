"""A journal read to its end, as one thing to look at."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.usage.segments import Damage, ends
from controlplane.usage.traces import Trace


@dataclass
class Replay:
    """What the segments of one epoch tell, by request."""

    traces: dict[uuid.UUID, Trace]
    damages: list[Damage] = field(default_factory=list)


def read(*folders: Path) -> Replay:
    """Read every segment of one epoch, in all its folders."""
    replay = Replay({})
    replay.traces = {it.opened.request_id: it for it in ends(*folders, damages=replay.damages)}
    return replay
