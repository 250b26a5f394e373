"""How long each replica took over the last minute, for the autoscaler and for rollouts; pure.

Fed by `router` when a request leaves a replica, read by `reporting`. Times are kept for a sample
of the requests, and of many replicas a report renews some in turn, so that it costs the same at
any load: it is made on the event loop, which must not stand still.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from controlplane.registry.gateways import Latency

SLOT_SECONDS = 10.0
SLOTS = 6
SLOT_SAMPLES = 50
RENEWED = 32  # replicas a report, at about 0.1 ms each


@dataclass(slots=True)
class _Sample:
    """Some of the values it was shown, each as likely as any other (Vitter's algorithm R)."""

    values: list[float] = field(default_factory=list)
    seen: int = 0

    def add(self, value: float) -> None:
        self.seen += 1
        if len(self.values) < SLOT_SAMPLES:
            self.values.append(value)
        elif (place := random.randrange(self.seen)) < SLOT_SAMPLES:
            self.values[place] = value


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    errors: int = 0
    ttft_ms: _Sample = field(default_factory=_Sample)
    itl_ms: _Sample = field(default_factory=_Sample)


class Latencies:
    """The last minute, in slots of `SLOT_SECONDS`. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, defaultdict[str, _Tally]]] = deque()
        self._told: dict[str, Latency] = {}  # the one renewed longest ago first

    def record(
        self,
        replica_id: str,
        now: float,
        *,
        ttft_ms: float | None,
        itl_ms: float | None,
        is_error: bool,
    ) -> None:
        """Take in one request at one replica; None for a time that it did not come to."""
        if not self._slots or now - self._slots[-1][0] >= SLOT_SECONDS:
            self._slots.append((now, defaultdict(_Tally)))
        tally = self._slots[-1][1][replica_id]
        tally.requests += 1
        tally.errors += is_error
        if ttft_ms is not None:
            tally.ttft_ms.add(ttft_ms)
        if itl_ms is not None:
            tally.itl_ms.add(itl_ms)

    def report(self, now: float) -> dict[str, Latency]:
        """Return the last minute of every replica that had a request in it.

        Each is renewed once in as many reports as there are `RENEWED` of them.
        """
        while self._slots and now - self._slots[0][0] >= SLOTS * SLOT_SECONDS:
            self._slots.popleft()
        tallies: defaultdict[str, list[_Tally]] = defaultdict(list)
        for _, slot in self._slots:
            for replica_id, tally in slot.items():
                tallies[replica_id].append(tally)
        self._told = {it: latency for it, latency in self._told.items() if it in tallies}
        in_turn = [*(it for it in tallies if it not in self._told), *self._told]
        for replica_id in in_turn[:RENEWED]:
            self._told.pop(replica_id, None)
            self._told[replica_id] = _latency(tallies[replica_id])
        return dict(self._told)


def _latency(tallies: list[_Tally]) -> Latency:
    return Latency(
        ttft_p95_ms=_p95([value for it in tallies for value in it.ttft_ms.values]),
        itl_p95_ms=_p95([value for it in tallies for value in it.itl_ms.values]),
        requests=sum(it.requests for it in tallies),
        errors=sum(it.errors for it in tallies),
    )


def _p95(values: list[float]) -> float | None:
    """The smallest value that 95 % do not exceed."""
    return sorted(values)[-(-95 * len(values) // 100) - 1] if values else None
