"""Which node a pod goes to: pure, for `kubelet`. Only extended resources are counted; the processor
and memory of one machine are shared by everything on it."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from controlplane.cluster import Object


def node_for(pod: Object, nodes: Iterable[Object], pods: Iterable[Object]) -> str | None:
    """Return the first node, by name, that may and can take a pod; None when there is none.

    Args:
        pods: all there are; those that have ended hold nothing.
    """
    wanted = extended(pod)
    held: dict[str, Counter[str]] = {}
    for other in pods:
        node = other["spec"].get("nodeName")
        if node and other.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            held.setdefault(node, Counter()).update(extended(other))
    for node in sorted(nodes, key=lambda it: str(it["metadata"]["name"])):
        name: str = node["metadata"]["name"]
        offered = node.get("status", {}).get("allocatable", {})
        free = Counter({kind: int(offered.get(kind, 0)) for kind in wanted})
        free.subtract(held.get(name, {}))
        fits = all(free[kind] >= count for kind, count in wanted.items())
        if fits and _is_open(pod, node) and _is_chosen(pod, node):
            return name
    return None


def extended(pod: Object) -> Counter[str]:
    """Return the extended resources a pod asks for, such as `nvidia.com/gpu`."""
    spec = pod["spec"]
    together: Counter[str] = Counter()
    for container in spec["containers"]:
        together.update(_requests(container))
    for container in spec.get("initContainers", ()):  # one after the other, before the rest
        together |= _requests(container)
    return together


def _requests(container: Object) -> Counter[str]:
    resources = container.get("resources", {})
    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    return Counter({kind: int(count) for kind, count in asked.items() if "/" in kind})


def _is_open(pod: Object, node: Object) -> bool:
    spec = node.get("spec", {})
    if spec.get("unschedulable") or "deletionTimestamp" in node["metadata"]:
        return False
    taints = [it for it in spec.get("taints", ()) if it["effect"] != "PreferNoSchedule"]
    tolerations = pod["spec"].get("tolerations", ())
    return all(any(_tolerates(it, taint) for it in tolerations) for taint in taints)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    asked = (toleration.get("key"), toleration.get("value", ""))
    return asked == (taint["key"], taint.get("value", ""))


def _is_chosen(pod: Object, node: Object) -> bool:
    spec = pod["spec"]
    labels = node["metadata"].get("labels", {})
    selector = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = required["nodeSelectorTerms"] if required else [{}]
    return any(
        all(_matches(it, labels) for it in term.get("matchExpressions", ())) for term in terms
    )


def _matches(expression: Object, labels: Object) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _number(value) > _number(expression["values"][0])
        case "Lt":
            return _number(value) < _number(expression["values"][0])
        case _:
            return False  # a word that a server would have refused


def _number(text: str | None) -> float:
    """A label as the whole number it is to be compared as; what is none compares with nothing."""
    return float(text) if text is not None and re.fullmatch(r"-?\d+", text) else math.nan
