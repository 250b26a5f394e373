"""Our finalizer: no object of ours goes before what it holds has been given back. Pure.

A list of finalizers is replaced whole, and others may have put theirs there: writes keep those, and
are conditional on the version they were read at.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.cluster import Object, Resource
from controlplane.crd.base import FINALIZER, Stored
from controlplane.operator.actions import Patch


def hold(held: Stored[Any, Any]) -> Patch:
    """Return what keeps an object until it is let go."""
    return _patch(held, [*held.finalizers, FINALIZER])


def let_go(held: Stored[Any, Any]) -> Patch:
    """Return what lets an object go, as far as we are concerned."""
    return _patch(held, _without_ours(held.finalizers))


def is_held(body: Object) -> bool:
    """Whether an object that cannot be read is kept by us."""
    return FINALIZER in body["metadata"].get("finalizers", ())


def let_go_unread(resource: Resource, body: Object) -> Patch:
    """Return what lets an object go that cannot be read."""
    metadata = body["metadata"]
    change = {
        "finalizers": _without_ours(metadata["finalizers"]),
        "resourceVersion": metadata["resourceVersion"],
    }
    return Patch(resource, metadata["namespace"], metadata["name"], {"metadata": change})


def _patch(held: Stored[Any, Any], finalizers: list[str]) -> Patch:
    change = {"finalizers": finalizers, "resourceVersion": held.resource_version}
    return Patch(held.resource, held.namespace, held.name, {"metadata": change})


def _without_ours(finalizers: Sequence[str]) -> list[str]:
    return [it for it in finalizers if it != FINALIZER]
