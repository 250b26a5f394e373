"""The objects of a cluster in memory, with what happens to them by itself: versions, deletion step
by step, garbage collection, namespaces that empty. Called by `objects`, under its lock."""

import uuid
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from controlplane.cluster import (
    LEADER_WORKER_SETS,
    NAMESPACES,
    NODES,
    PODS,
    Conflict,
    Invalid,
    NotFound,
    Object,
    Resource,
    key_of,
)
from controlplane.crd.base import timestamp
from controlplane.local import ownership
from controlplane.local.admission import admitted, is_ours
from controlplane.local.history import Change, History

Key: TypeAlias = tuple[str, str]  # namespace, name
Owner: TypeAlias = tuple[str, str, str]  # field manager, Apply or Update, subresource

POD_GRACE_SECONDS = 30
# Written by the server alone.
_SERVERS = ("uid", "creationTimestamp", "generation", "deletionTimestamp")
_SERVERS_OF_PODS = ("deletionGracePeriodSeconds",)


class Objects:
    """Objects by kind and key. What is in it is never changed in place."""

    def __init__(self, history: History, now: Callable[[], float]) -> None:
        self._history = history
        self._now = now
        self._kinds: dict[Resource, dict[Key, Object]] = {}
        self._uids: set[str] = set()
        self._owned: dict[tuple[Resource, Key], dict[Owner, ownership.Paths]] = {}

    def all(self, resource: Resource) -> Iterable[Object]:
        """Return a kind's objects in the order of their keys."""
        kept = self._kinds.get(resource, {})
        return [kept[key] for key in sorted(kept)]

    def find(self, resource: Resource, key: Key) -> Object | None:
        """Return an object, None when there is none."""
        return self._kinds.get(resource, {}).get(key)

    def get(self, resource: Resource, key: Key) -> Object:
        """Return an object.

        Raises:
            NotFound: there is none.
        """
        found = self.find(resource, key)
        if found is None:
            raise NotFound(f"{resource.plural} {key[1]!r} not found")
        return found

    def add(self, resource: Resource, body: Object, owner: Owner | None = None) -> Object:
        """Keep a new object; it goes again at once when none of its owners is there."""
        key = key_of(body)
        metadata = {name: it for name, it in body["metadata"].items() if name not in _SERVERS}
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp(self._now())
        if _counts_generations(resource):
            metadata["generation"] = 1
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            **body,
            "metadata": metadata,
        }
        body = admitted(resource, _first_status(resource, body), None)
        if owner is not None:
            self._owned[resource, key] = {owner: ownership.paths_of(body)}
        body = self._keep(resource, key, "ADDED", body)
        if metadata.get("ownerReferences") and self._is_orphan(body):
            self.ask_to_go(resource, key, None)
        return body

    def replace(
        self,
        resource: Resource,
        key: Key,
        body: Object,
        owner: Owner,
        *,
        applied: ownership.Paths | None = None,
    ) -> Object:
        """Keep a changed object; one that is as it was keeps its version.

        Args:
            applied: the leaves that are `owner`'s from now on; None adds what it has changed.
        """
        before = self.get(resource, key)
        body["metadata"] = _metadata(before["metadata"], body["metadata"])
        body = admitted(resource, body, before)
        self._own(resource, key, owner, ownership.changed(before, body), applied)
        if body == before:
            return before
        if _counts_generations(resource) and _wanted(body) != _wanted(before):
            body["metadata"]["generation"] += 1
        body = self._keep(resource, key, "MODIFIED", body)
        if "deletionTimestamp" in body["metadata"] and _may_go(resource, body):
            self._remove(resource, key)
        return body

    def owned_by(self, resource: Resource, key: Key, owner: Owner) -> ownership.Paths:
        """Return the leaves that are `owner`'s."""
        return self._owned.get((resource, key), {}).get(owner, frozenset())

    def owned_by_others(self, resource: Resource, key: Key, owner: Owner) -> ownership.Paths:
        """Return the leaves that are somebody else's."""
        owners = self._owned.get((resource, key), {})
        return frozenset().union(*(paths for it, paths in owners.items() if it != owner))

    def bind(self, key: Key, node: str) -> Object:
        """Give a pod its node, as the Binding of a scheduler does.

        Raises:
            Conflict: it has one.
        """
        before = self.get(PODS, key)
        if before["spec"].get("nodeName"):
            raise Conflict(f"pod {key[1]!r} is already assigned to a node")
        status = dict(before.get("status", {}))
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": timestamp(self._now()),
        }
        status["conditions"] = [*status.get("conditions", ()), scheduled]
        body = {
            **before,
            "metadata": dict(before["metadata"]),
            "spec": {**before["spec"], "nodeName": node},
            "status": status,
        }
        return self._keep(PODS, key, "MODIFIED", body)

    def ask_to_go(self, resource: Resource, key: Key, grace_seconds: int | None) -> None:
        """Delete an object, at once if nothing holds it: finalizers, a pod's grace, a content."""
        before = self.get(resource, key)
        metadata = dict(before["metadata"])
        body = {**before, "metadata": metadata}
        if resource == PODS:
            _shorten_grace(body, self._now(), grace_seconds)
        else:
            metadata.setdefault("deletionTimestamp", timestamp(self._now()))
        if resource == NAMESPACES:
            body["status"] = {**body.get("status", {}), "phase": "Terminating"}
        if body == before:
            return
        if _may_go(resource, body) and resource != NAMESPACES:
            self._remove(resource, key)
            return
        self._keep(resource, key, "MODIFIED", body)
        if resource == NAMESPACES:
            self._empty(key[1])

    def _keep(
        self,
        resource: Resource,
        key: Key,
        kind: Literal["ADDED", "MODIFIED", "DELETED"],
        body: Object,
    ) -> Object:
        self._history.version += 1
        version = self._history.version
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        kept = self._kinds.setdefault(resource, {})
        before = kept.get(key)
        if kind == "DELETED":
            del kept[key]
            self._uids.discard(body["metadata"]["uid"])
        else:
            kept[key] = body
            self._uids.add(body["metadata"]["uid"])
        self._history.append(Change(version, resource, kind, before, body))
        return body

    def _own(
        self,
        resource: Resource,
        key: Key,
        owner: Owner,
        changed: ownership.Paths,
        applied: ownership.Paths | None,
    ) -> None:
        owners = self._owned.setdefault((resource, key), {})
        for other in owners:
            owners[other] -= changed
        owners[owner] = (
            applied if applied is not None else self.owned_by(resource, key, owner) | changed
        )

    def _remove(self, resource: Resource, key: Key) -> None:
        body = self._kinds[resource][key]
        self._keep(resource, key, "DELETED", body)
        self._owned.pop((resource, key), None)
        self._collect(body["metadata"]["uid"])
        namespace = self.find(NAMESPACES, ("", key[0]))
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            self._empty(key[0])

    def _collect(self, uid: str) -> None:
        """Delete what has lost its last owner."""
        for resource, kept in list(self._kinds.items()):
            for key, body in list(kept.items()):
                owners = body["metadata"].get("ownerReferences", ())
                owned = any(it["uid"] == uid for it in owners)
                if owned and key in kept and self._is_orphan(body):
                    self.ask_to_go(resource, key, None)

    def _is_orphan(self, body: Object) -> bool:
        wanted = {it["uid"] for it in body["metadata"].get("ownerReferences", ())}
        return bool(wanted) and wanted.isdisjoint(self._uids)

    def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace, and it when nothing is."""
        inside = [
            (resource, key)
            for resource, kept in self._kinds.items()
            for key in kept
            if resource.namespaced and key[0] == namespace
        ]
        for resource, key in inside:
            found = self.find(resource, key)
            if found is not None and "deletionTimestamp" not in found["metadata"]:
                self.ask_to_go(resource, key, None)
        left = any(key[0] == namespace for kept in self._kinds.values() for key in kept)
        itself = self.find(NAMESPACES, ("", namespace))
        if itself is not None and not left and _may_go(NAMESPACES, itself):
            self._remove(NAMESPACES, ("", namespace))


def _counts_generations(resource: Resource) -> bool:
    return is_ours(resource) or resource == LEADER_WORKER_SETS


def _wanted(body: Object) -> Object:
    return {name: value for name, value in body.items() if name not in ("metadata", "status")}


def _first_status(resource: Resource, body: Object) -> Object:
    """A new object's status is not its creator's to tell, but for nodes."""
    if resource == NODES:
        return body
    rest = {name: value for name, value in body.items() if name != "status"}
    if resource == PODS:
        return {**rest, "status": {"phase": "Pending", "qosClass": "BestEffort"}}
    if resource == NAMESPACES:
        return {**rest, "status": {"phase": "Active"}}
    return rest


def _metadata(before: Object, after: Object) -> Object:
    """An object's new metadata, the server's own fields as they were.

    Raises:
        Invalid: a finalizer is added to what is being deleted.
    """
    own = (*_SERVERS, *_SERVERS_OF_PODS)
    out = {name: value for name, value in after.items() if name not in own}
    out |= {name: value for name, value in before.items() if name in own}
    out["resourceVersion"] = before["resourceVersion"]
    if out.get("finalizers") == []:
        del out["finalizers"]
    if "deletionTimestamp" in before:
        added = set(out.get("finalizers", ())) - set(before.get("finalizers", ()))
        if added:
            raise Invalid(f"metadata.finalizers: no new ones while it is deleted: {sorted(added)}")
    return out


def _may_go(resource: Resource, body: Object) -> bool:
    metadata = body["metadata"]
    graced = resource == PODS and metadata.get("deletionGracePeriodSeconds", 0) > 0
    return not metadata.get("finalizers") and not graced


def _shorten_grace(pod: Object, now: float, grace_seconds: int | None) -> None:
    """Give a pod its time to end, or less than it had: none where nothing of it can run."""
    metadata, spec = pod["metadata"], pod["spec"]
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    if not spec.get("nodeName") or ended:
        grace_seconds = 0
    elif grace_seconds is None:
        grace_seconds = spec.get("terminationGracePeriodSeconds", POD_GRACE_SECONDS)
    before = metadata.get("deletionGracePeriodSeconds")
    if before is not None and before <= grace_seconds:
        return
    metadata["deletionGracePeriodSeconds"] = grace_seconds
    metadata["deletionTimestamp"] = timestamp(now + grace_seconds)
