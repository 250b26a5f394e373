"""From GPU errors to what is to be done with a node and with what runs on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.cluster import NODES
from controlplane.operator.actions import Patch, Plan
from controlplane.operator.capacity.nodes import QUARANTINE_ANNOTATION, Node
from controlplane.operator.health.table import Action
from controlplane.operator.signals import GPUError

# Errors that a restart repairs, when they come back, are a fault of the machine.
REPEATS = 3
REPEATS_WITHIN_SECONDS = 86_400.0


@dataclass(frozen=True)
class Verdict:
    """The gravest thing that a node's errors ask for; `xid` is the newest error of that gravity."""

    action: Action = Action.IGNORE
    xid: int | None = None
    message: str = ""


def verdict(
    errors: Iterable[GPUError], actions: Mapping[int, Action], *, since: float, now: float
) -> Verdict:
    """Judge the errors after `since`; an XID that no table knows is shown and not acted on.

    The `REPEATS`-th error within `REPEATS_WITHIN_SECONDS` that asks for a restart asks for
    quarantine, whenever the earlier ones were.
    """
    gravest = Verdict()
    restarts = 0
    for error in errors:
        action = actions.get(error.xid, Action.IGNORE)
        message = error.message
        if action is Action.RESTART_APP and now - error.at <= REPEATS_WITHIN_SECONDS:
            restarts += 1
            if restarts >= REPEATS:
                action = Action.QUARANTINE
                message = f"{restarts} errors within a day, the last one XID {error.xid}"
        if error.at >= since and action >= gravest.action:
            gravest = Verdict(action, error.xid, message or f"XID {error.xid}")
    return gravest


def plan_node(
    node: Node, errors: Iterable[GPUError], actions: Mapping[int, Action], now: float
) -> Plan:
    """Take a node out of use when its errors ask for it; putting it back is a person's decision.

    A person does that by removing the annotation; errors from before are then forgotten only when
    they have left `Signals.gpu_errors`, so the machine should have been reset or restarted.
    """
    judged = verdict(errors, actions, since=_restarted_at(node), now=now)
    if judged.action < Action.RESET_GPU or node.quarantined:
        return Plan()
    return Plan((quarantine(node.name, f"XID {judged.xid}: {judged.message}"),))


def quarantine(node: str, why: str) -> Patch:
    """Return what keeps everything of ours off a node."""
    return Patch(NODES, "", node, {"metadata": {"annotations": {QUARANTINE_ANNOTATION: why}}})


def _restarted_at(node: Node) -> float:
    """Errors from before a node became ready last are those of an earlier boot."""
    return node.changed_at if node.ready else 0.0
