"""Carries out a plan's actions in their order and stops at the first that fails. For `controller`.

What the API server answers goes through to the caches, so that the next round plans with it. Some
answers are no failures: what is to be deleted is gone already; what is to be changed has gone
meanwhile, so there is nothing left to do about it; and a namespace that ends takes nothing new, so
that trying again would go on until it has ended.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, assert_never

from controlplane.cluster import (
    EVENTS,
    Cluster,
    ClusterError,
    Conflict,
    NamespaceTerminating,
    NotFound,
    Object,
    Resource,
)
from controlplane.operator.actions import (
    Action,
    Apply,
    ApplyStatus,
    Create,
    Delete,
    Emit,
    Patch,
    Plan,
)
from controlplane.operator.runtime.events import EventRecorder
from controlplane.operator.runtime.metrics import WRITES
from controlplane.watching.cache import Cache

_log = logging.getLogger(__name__)


class NotLeading(ClusterError):
    """This operator has lost the lead: it writes nothing more."""


class Executor:
    """Writes to a cluster; safe for use by many threads."""

    def __init__(
        self,
        cluster: Cluster,
        caches: Iterable[Cache[Any]],
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            caches: take the API server's answers, each those of its resource.
            may_write: asked before every write; an operator that lost the lead may not.
            clock: seconds since 1970, for Events.
        """
        self._cluster = cluster
        self._caches = {cache.resource: cache for cache in caches}
        self._may_write = may_write
        self._events = EventRecorder(cluster, clock)

    def execute(self, plan: Plan) -> bool:
        """Carry a plan out; return whether all of it was done.

        False: what it was about has gone, or its namespace ends; a change will tell more.

        Raises:
            ClusterError: an action failed; those after it were not tried.
            NotLeading: the lead is lost.
        """
        for action in plan.actions:
            if not self._may_write():
                raise NotLeading("the lead is lost")
            resource = EVENTS if isinstance(action, Emit) else action.resource
            try:
                self._carry_out(action)
            except ClusterError as error:
                outcome = type(error).__name__
                WRITES.labels(resource.plural, type(action).__name__, outcome).inc()
                if not _ends_quietly(action, error):
                    raise
                _log.info("plan_is_moot", extra={"resource": resource.plural, "reason": outcome})
                return False
            WRITES.labels(resource.plural, type(action).__name__, "ok").inc()
        return True

    def _carry_out(self, action: Action) -> None:
        match action:
            case Create():
                self._learn(action.resource, self._cluster.create(action.resource, action.body))
            case Apply():
                self._learn(action.resource, self._cluster.apply(action.resource, action.body))
            case ApplyStatus():
                written = self._cluster.apply_status(action.resource, action.body)
                self._learn(action.resource, written)
            case Patch():
                patched = self._cluster.patch(
                    action.resource, action.name, action.change, namespace=action.namespace
                )
                self._learn(action.resource, patched)
            case Delete():
                self._delete(action)
            case Emit():
                self._events.emit(action)
            case _:
                assert_never(action)

    def _delete(self, action: Delete) -> None:
        try:
            self._cluster.delete(
                action.resource,
                action.name,
                namespace=action.namespace,
                uid=action.uid,
                grace_seconds=action.grace_seconds,
            )
        except NotFound:
            return
        except Conflict:
            if action.uid is None:
                raise
            # One of the same name is there; the one that was meant is gone.

    def _learn(self, resource: Resource, body: Object) -> None:
        cache = self._caches.get(resource)
        if cache is not None:
            cache.assume(body)


def _ends_quietly(action: Action, error: ClusterError) -> bool:
    if isinstance(error, NamespaceTerminating):
        return True
    return isinstance(error, NotFound) and isinstance(action, ApplyStatus | Patch)
