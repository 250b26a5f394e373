"""As much of a cluster as electing a leader needs, lines that can be cut, clocks that move."""

from typing import Any

from controlplane.cluster import AlreadyExists, Conflict, NotFound, Object, Unreachable
from controlplane.operator.runtime.lease import Elector

LEASE_SECONDS = 15.0


class LeaseStore:
    """As much of a cluster as a lease needs: one object and its versions."""

    def __init__(self) -> None:
        self.body: Object | None = None
        self.version = 0

    def get(self, *_: Any, **__: Any) -> Object:
        if self.body is None:
            raise NotFound("no lease")
        return self.body

    def create(self, _: Any, body: Object) -> Object:
        if self.body is not None:
            raise AlreadyExists("lease")
        return self._store(body["spec"])

    def patch(self, _: Any, __: str, change: Object, **___: Any) -> Object:
        body = self.get()
        if change["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store({**body["spec"], **change["spec"]})

    def _store(self, spec: Object) -> Object:
        self.version += 1
        self.body = {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}
        return self.body


class CutOff:
    """The store behind a line that can be cut, before or after a write arrives."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self.fault = ""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Object:
            if self.fault == "before":
                raise Unreachable("cut")
            answer: Object = getattr(self._store, name)(*args, **kwargs)
            if self.fault == "after":
                raise Unreachable("cut")
            return answer

        return call


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def elector(cluster: Any, identity: str, clock: Clock) -> Elector:
    return Elector(
        cluster,
        namespace="n",
        name="operator",
        identity=identity,
        lease_seconds=LEASE_SECONDS,
        clock=clock,
    )
