"""What a plan decides to do, as data: made by pure code, carried out by `runtime.executor`.

A plan lists its actions in the order they must happen; the first that fails ends the round, and the
next round plans anew from what is then true. So a crash between two writes needs no repair.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from controlplane.cluster import Object, Resource


@dataclass(frozen=True)
class Create:
    """Make an object whose name is its claim on a slot; one that is there is another's."""

    resource: Resource
    body: Object = field(repr=False)


@dataclass(frozen=True)
class Apply:
    """Make an object, or bring the fields that are ours to this."""

    resource: Resource
    body: Object = field(repr=False)


@dataclass(frozen=True)
class ApplyStatus:
    """Write a status. Left out by plans when nothing in it has changed."""

    resource: Resource
    body: Object = field(repr=False)


@dataclass(frozen=True)
class Patch:
    """Merge a change: finalizers, annotations, a replica's weight or drain."""

    resource: Resource
    namespace: str
    name: str
    change: Object


@dataclass(frozen=True)
class Delete:
    """Ask for a deletion; one that is gone already is fine. `uid` guards against namesakes."""

    resource: Resource
    namespace: str
    name: str
    uid: str | None = None
    grace_seconds: int | None = None


@dataclass(frozen=True)
class Emit:
    """Tell people: a Kubernetes Event on `about`, aggregated with equal ones."""

    about: Object = field(repr=False)
    type: str  # Normal or Warning
    reason: str
    message: str


Action: TypeAlias = Create | Apply | ApplyStatus | Patch | Delete | Emit


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again though nothing changed; None: only on a change."""

    actions: tuple[Action, ...] = ()
    again_in_seconds: float | None = None
