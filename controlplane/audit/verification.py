"""Finds what was changed, removed, moved or cut in audit chains. For `flashplane audit verify`."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.audit.chain import BEGINNING, event_hash
from controlplane.audit.models import PLATFORM, AuditEvent

Vouched = Mapping[uuid.UUID, Mapping[int, bytes]]
_BATCH = 1000


@dataclass(slots=True)
class Verdict:
    """What was looked at and what is wrong with it; sound when nothing is."""

    chains: int = 0
    events: int = 0
    findings: list[str] = field(default_factory=list)


def verify(session: Session, vouched: Vouched) -> Verdict:
    """Check every event of every chain, and that all that anchors vouch for is there."""
    verdict = Verdict()
    query = select(AuditEvent).order_by(AuditEvent.chain, AuditEvent.seq, AuditEvent.id)
    events = session.scalars(query.execution_options(yield_per=_BATCH))
    missing = set(vouched)
    for chain, of_chain in groupby(events, key=lambda event: event.chain):
        verdict.chains += 1
        missing.discard(chain)
        walk = _Walk(chain, vouched.get(chain, {}))
        verdict.findings.extend(walk.check(of_chain))
        verdict.events += walk.events
    for chain in sorted(missing):
        verdict.findings.extend(_Walk(chain, vouched[chain]).check(()))
    return verdict


class _Walk:
    """One way through one chain."""

    def __init__(self, chain: uuid.UUID, vouched: Mapping[int, bytes]) -> None:
        self.name = "platform" if chain == PLATFORM else f"tenant {chain}"
        self.vouched = vouched
        self.events = 0
        self.seq = 0
        self.hash = BEGINNING

    def check(self, events: Iterable[AuditEvent]) -> Iterator[str]:
        for event in events:
            self.events += 1
            yield from (f"{self.name}: {wrong}" for wrong in self._step(event))
        last = max(self.vouched, default=0)
        if last > self.seq:
            yield (
                f"{self.name}: ends at event {self.seq}, but an anchor vouches for event {last}:"
                " the end was cut"
            )

    def _step(self, event: AuditEvent) -> Iterator[str]:
        if event.seq == self.seq:
            yield f"event {event.seq} is there more than once: the chain was forked"
        elif event.seq > self.seq + 1:
            gone = (
                f"{self.seq + 1} to {event.seq - 1}" if event.seq > self.seq + 2 else event.seq - 1
            )
            yield f"event {gone} is missing before event {event.seq}"
        elif event.previous_hash != self.hash:
            yield f"event {event.seq} does not follow event {self.seq}: one of them was replaced"
        if event.hash != _hash_of(event):
            yield f"event {event.seq} was changed after it was written"
        if (event.tenant_id or PLATFORM) != event.chain:
            yield f"event {event.seq} was given to another tenant"
        if self.vouched.get(event.seq, event.hash) != event.hash:
            yield f"event {event.seq} is not the one that an anchor vouches for: it was rewritten"
        self.seq, self.hash = event.seq, event.hash


def _hash_of(event: AuditEvent) -> bytes:
    return event_hash(
        chain=event.chain,
        seq=event.seq,
        at=event.at,
        actor=event.actor,
        action=event.action,
        subject=event.subject,
        details=event.details,
        previous_hash=event.previous_hash,
    )
