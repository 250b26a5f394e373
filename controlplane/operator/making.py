"""How a replica is made: its name claims one of its owner's slots. Pure.

The API server gives a name to one object alone, so that two rounds that see the same old picture
cannot both take a slot, and no budget is ever exceeded. The slot is free when the object is gone.
"""

from typing import Any

from controlplane.crd.base import FINALIZER, OWNER_LABEL, REPLICAS, Stored
from controlplane.crd.replica import Replica, ReplicaSpec
from controlplane.operator.actions import Create


def make(owner: Stored[Any, Any], spec: ReplicaSpec) -> Create:
    """Return the making of a replica in `spec.slot`."""
    metadata = {
        "labels": {OWNER_LABEL: owner.name},
        "finalizers": [FINALIZER],
        "ownerReferences": [owner.owner_reference()],
    }
    name = f"{owner.name}-{spec.slot}"
    body = Replica.body(owner.namespace, name, metadata=metadata, spec=spec.wire())
    return Create(REPLICAS, body)
