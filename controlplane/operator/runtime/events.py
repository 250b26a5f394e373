"""Tells people what happened to an object, as Kubernetes Events that do not flood. For `executor`.

An equal event counts up the one that is there, also across restarts, since its name follows from
what it says. An object that has much to tell is heard at most so often. Telling never fails a
round.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from controlplane.cluster import (
    EVENTS,
    AlreadyExists,
    Cluster,
    ClusterError,
    NotFound,
    Object,
    key_of,
)
from controlplane.crd.base import timestamp
from controlplane.operator.actions import Emit
from controlplane.operator.runtime.metrics import EVENTS_DROPPED

COMPONENT = "flashplane-operator"
BURST = 25  # events of one object at once
REFILL_SECONDS = 60.0  # one more for each
MOST_REMEMBERED = 4096  # objects, and events
MOST_MESSAGE_CHARACTERS = 1024


class EventRecorder:
    """Writes Events; safe for use by many threads."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, at
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()  # by namespace and name

    def emit(self, event: Emit) -> None:
        """Tell, or count one more of the same, or keep silent."""
        if not self._may_tell(event.about["metadata"].get("uid", "")):
            EVENTS_DROPPED.labels("too many").inc()
            return
        try:
            self._write(event)
        except ClusterError as error:
            EVENTS_DROPPED.labels(type(error).__name__).inc()

    def _may_tell(self, uid: str) -> bool:
        now = self._clock()
        with self._lock:
            left, at = self._budgets.pop(uid, (float(BURST), now))
            left = min(float(BURST), left + (now - at) / REFILL_SECONDS)
            self._budgets[uid] = (left - 1 if left >= 1 else left, now)
            while len(self._budgets) > MOST_REMEMBERED:
                self._budgets.popitem(last=False)
        return left >= 1

    def _write(self, event: Emit) -> None:
        body = event_body(event, self._clock())
        key = key_of(body)
        with self._lock:
            count = self._counts.get(key)
        try:
            if count is not None:
                self._count_up(body, count)
                return
            self._cluster.create(EVENTS, body)
            self._remember(key, 1)
        except AlreadyExists:  # of an operator before this one
            known = self._cluster.get(EVENTS, key[1], namespace=key[0])
            self._count_up(body, int(known.get("count") or 1))

    def _count_up(self, body: Object, count: int) -> None:
        namespace, name = key = key_of(body)
        again = {"count": count + 1, "lastTimestamp": body["lastTimestamp"]}
        try:
            self._cluster.patch(EVENTS, name, again, namespace=namespace)
        except NotFound:  # it has expired: it begins anew
            self._cluster.create(EVENTS, body)
            count = 0
        self._remember(key, count + 1)

    def _remember(self, key: tuple[str, str], count: int) -> None:
        with self._lock:
            self._counts.pop(key, None)
            self._counts[key] = count
            while len(self._counts) > MOST_REMEMBERED:
                self._counts.popitem(last=False)


def event_body(event: Emit, now: float) -> Object:
    """Return the Event's first form; its name is the same for all that say the same."""
    metadata = event.about["metadata"]
    message = event.message[:MOST_MESSAGE_CHARACTERS]
    said = "\0".join((metadata.get("uid", ""), event.type, event.reason, message))
    at = timestamp(now)
    namespace = metadata.get("namespace", "")
    return {
        "metadata": {
            "namespace": namespace or "default",
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
        },
        "involvedObject": {
            "apiVersion": event.about["apiVersion"],
            "kind": event.about["kind"],
            "namespace": namespace,
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "source": {"component": COMPONENT},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
