"""Deployments whose spec breaks a rule that the API server did not check. Pure; for `controller`.

What runs stays, nothing is made, the status tells what is wrong, and a deletion ends all the same.
"""

from collections.abc import Sequence

from controlplane.cluster import Object
from controlplane.crd.base import DEPLOYMENTS
from controlplane.crd.conditions import Reason
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.actions import Action, Plan
from controlplane.operator.deployment import replicas as writes
from controlplane.operator.deployment.fleet import ENDED, is_leaving
from controlplane.operator.finalizers import is_held, let_go_unread
from controlplane.operator.unreadable import refuse


def plan_broken(body: Object, error: str, replicas: Sequence[Replica], now: float) -> Plan:
    """Return the next steps for a deployment that cannot be read.

    Args:
        body: the object.
        error: why it cannot.
        replicas: its own.
    """
    if "deletionTimestamp" in body["metadata"]:
        return _ending(body, replicas)
    return refuse(InferenceDeployment, body, error, now)


def _ending(body: Object, replicas: Sequence[Replica]) -> Plan:
    if all(it.status.phase is Phase.QUARANTINED for it in replicas):
        return Plan((let_go_unread(DEPLOYMENTS, body),)) if is_held(body) else Plan()
    staying = [it for it in replicas if not is_leaving(it)]
    ended = [it for it in replicas if it.status.phase in ENDED and not it.deleting]
    actions: list[Action] = [
        *(writes.drain(it, Reason.DELETING) for it in staying),
        *map(writes.remove, ended),
    ]
    return Plan(tuple(actions))
