"""Where GPU errors and notices are read from: what agents on nodes leave in Kubernetes' objects.

Errors come from any of

- the node annotation `flashplane.io/gpu-errors`, `94@2026-11-22T10:00:00Z 79@...`;
- node conditions whose type has "xid" in it and that are True, as node-problem-detector and
  DCGM-based agents set them, with the number in the message;
- Events about a Node whose reason or message has an XID as the driver writes it.
"""

import re
from collections.abc import Iterator

from controlplane.cluster import Object
from controlplane.crd.base import GROUP, seconds
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.signals import GPUError

ERRORS_ANNOTATION = f"{GROUP}/gpu-errors"
# `NVRM: Xid (PCI:0000:06:00): 79, pid=...`, `XID 79`, `Xid=79`
_XID = re.compile(r"\bxid\b\s*(?:\([^)]*\))?\s*[:=#]?\s*(\d{1,4})\b", re.IGNORECASE)


def errors_of_node(node: Node) -> Iterator[GPUError]:
    """Yield the errors that a node itself tells, in no order."""
    for word in node.annotations.get(ERRORS_ANNOTATION, "").split():
        xid, _, at = word.partition("@")
        moment = _moment(at)
        if xid.isdigit() and moment is not None:
            yield GPUError(moment, int(xid))
    for type, condition in node.conditions.items():
        if "xid" not in type.lower() or condition.get("status") != "True":
            continue
        text = f"{condition.get('reason', '')} {condition.get('message', '')}"
        found, moment = _XID.search(text), _moment(condition.get("lastTransitionTime", ""))
        if found is not None and moment is not None:
            yield GPUError(moment, int(found.group(1)), condition.get("message", "")[:200])


def error_of_event(body: Object) -> tuple[str, GPUError] | None:
    """Return the node and the error that an Event tells of; None when it does not."""
    about = body.get("involvedObject", {})
    found = _XID.search(f"{body.get('reason', '')} {body.get('message', '')}")
    told_at = body.get("lastTimestamp") or body.get("eventTime") or ""
    moment = _moment(told_at)
    if about.get("kind") != "Node" or found is None or moment is None:
        return None
    return about["name"], GPUError(moment, int(found.group(1)), body.get("message", "")[:200])


def _moment(timestamp: str) -> float | None:
    try:
        return seconds(timestamp)
    except ValueError:
        return None
