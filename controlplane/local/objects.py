"""An API server in memory: `flashplane up` runs the operator on it, tests break it on purpose.

It answers as a real one does where this program can tell the difference; tests/kube proves it
against a real one. Kinds need not be declared. Nothing is kept on disk.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from controlplane.cluster import (
    FIELD_MANAGER,
    NAMESPACES,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    Listing,
    NamespaceTerminating,
    NotFound,
    Object,
    Resource,
    WatchEvent,
    key_of,
)
from controlplane.local import ownership
from controlplane.local.history import Change, History
from controlplane.local.kinds import BINDINGS
from controlplane.local.merging import copied, merge_patched
from controlplane.local.selectors import Matcher, matcher
from controlplane.local.stored import Key, Objects, Owner

MAX_PAGES = 64


@dataclass(frozen=True)
class Call:
    """One operation, as the faults hook sees it; `name` is empty for lists and watches."""

    verb: Literal["list", "watch", "get", "create", "apply", "apply_status", "patch", "delete"]
    resource: Resource
    namespace: str = ""
    name: str = ""


Moment: TypeAlias = Literal["before", "after"]
Page: TypeAlias = tuple[list[Object], str]


def _no_faults(call: Call, moment: Moment) -> None:
    return


class LocalCluster:
    """Implements `cluster.Cluster`; any thread may call it.

    Args:
        now: seconds since 1970, for timestamps.
        history: changes kept for watches.
        faults: called before and after every operation, and after every event of a watch before it
            is yielded; what it raises is what the caller gets. After a write, the write is done.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        history: int = 10_000,
        faults: Callable[[Call, Moment], None] = _no_faults,
    ) -> None:
        self.history = History(history)
        self.faults = faults
        self._objects = Objects(self.history, now)
        self._pages: dict[str, Page] = {}
        self._lock: threading.RLock = self.history.lock
        with self._lock:
            for name in ("default", "kube-system"):
                self._objects.add(NAMESPACES, {"metadata": {"name": name}})

    def close(self) -> None:
        """End all watches."""
        self.history.close()

    def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        limit: int = 500,
        continuation: str = "",
    ) -> Listing:
        """Return one page; the pages of one list show one moment."""
        call = Call("list", resource, namespace or "")
        self.faults(call, "before")
        with self._lock:
            if continuation:
                if continuation not in self._pages:
                    raise Gone("the continuation is too old")
                found, version = self._pages[continuation]
            else:
                matches = matcher(labels)
                objects = self._objects.all(resource)
                found = [it for it in objects if _selected(it, namespace, matches)]
                version = str(self.history.version)
            rest = found[limit:]
            token = self._keep_page((rest, version)) if rest else ""
        self.faults(call, "after")
        return Listing([copied(it) for it in found[:limit]], version, token)

    def _keep_page(self, page: Page) -> str:
        token = f"{page[1]}.{len(page[0])}.{time.monotonic_ns()}"
        self._pages[token] = page
        while len(self._pages) > MAX_PAGES:
            del self._pages[next(iter(self._pages))]
        return token

    def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        labels: str = "",
        timeout_seconds: float = 300.0,
    ) -> Iterator[WatchEvent]:
        """Yield changes; the last event before the time is over is a bookmark."""
        call = Call("watch", resource, namespace or "")
        self.faults(call, "before")
        matches = matcher(labels)
        version = int(resource_version or 0)
        if not version:  # from any moment on, which begins with what is there
            with self._lock:
                version = self.history.version
                objects = self._objects.all(resource)
                there = [it for it in objects if _selected(it, namespace, matches)]
            yield from (WatchEvent("ADDED", copied(it)) for it in there)
        for batch in self.history.after(version, timeout_seconds=timeout_seconds):
            for change in batch:
                version = change.version
                if change.resource == resource:
                    yield from self._event(call, change, namespace, matches)
        yield WatchEvent(
            "BOOKMARK",
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"resourceVersion": str(version)},
            },
        )

    def _event(
        self, call: Call, change: Change, namespace: str | None, matches: Matcher
    ) -> Iterator[WatchEvent]:
        """A change as a selecting watch sees it: things come into and go out of its sight."""
        before, after = change.before, change.after
        was = before is not None and _selected(before, namespace, matches)
        is_now = change.type != "DELETED" and _selected(after, namespace, matches)
        if not (was or is_now):
            return
        kind: Literal["ADDED", "MODIFIED", "DELETED"]
        kind = "MODIFIED" if was and is_now else ("ADDED" if is_now else "DELETED")
        self.faults(call, "after")
        yield WatchEvent(kind, copied(after))

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        """Return a copy of an object."""
        call = Call("get", resource, namespace, name)
        self.faults(call, "before")
        with self._lock:
            found = copied(self._objects.get(resource, (namespace, name)))
        self.faults(call, "after")
        return found

    def create(self, resource: Resource, body: Object) -> Object:
        """Create an object; its status is not taken, but a node's is."""
        return self._write("create", resource, body, FIELD_MANAGER)

    def apply(self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Apply all but the status."""
        return self._write("apply", resource, body, manager)

    def apply_status(
        self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER
    ) -> Object:
        """Apply the status alone."""
        return self._write("apply_status", resource, body, manager)

    def patch(
        self, resource: Resource, name: str, change: Object, *, namespace: str = ""
    ) -> Object:
        """Merge a change into all but the status."""
        metadata = {**change.get("metadata", {}), "name": name}
        if namespace:
            metadata["namespace"] = namespace
        return self._write("patch", resource, {**change, "metadata": metadata}, FIELD_MANAGER)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object as soon as nothing holds it; what it owns goes before this returns."""
        call = Call("delete", resource, namespace, name)
        self.faults(call, "before")
        with self._lock:
            found = self._objects.get(resource, (namespace, name))
            if uid is not None and uid != found["metadata"]["uid"]:
                raise Conflict(f"{resource.plural} {name!r}: the uid is another")
            self._objects.ask_to_go(resource, (namespace, name), grace_seconds)
        self.faults(call, "after")

    def _write(
        self,
        verb: Literal["create", "apply", "apply_status", "patch"],
        resource: Resource,
        body: Object,
        manager: str,
    ) -> Object:
        if not body.get("metadata", {}).get("name"):
            raise Invalid("metadata.name: Required value")
        key = key_of(body)
        if resource.namespaced and not key[0]:
            raise Invalid("metadata.namespace: Required value")
        call = Call(verb, resource, *key)
        self.faults(call, "before")
        with self._lock:
            body = copied(body)
            if verb == "create":
                written = self._create(resource, key, body, (manager, "Update", ""))
            elif verb == "patch":
                written = self._patch(resource, key, body, (manager, "Update", ""))
            else:
                part = "status" if verb == "apply_status" else ""
                written = self._apply(resource, key, body, (manager, "Apply", part))
            written = copied(written)
        self.faults(call, "after")
        return written

    def _create(self, resource: Resource, key: Key, body: Object, owner: Owner) -> Object:
        if resource == BINDINGS:
            return self._objects.bind(key, body["target"]["name"])
        if self._objects.find(resource, key) is not None:
            raise AlreadyExists(f"{resource.plural} {key[1]!r} already exists")
        self._check_namespace(resource, key[0])
        return self._objects.add(resource, body, owner)

    def _patch(self, resource: Resource, key: Key, change: Object, owner: Owner) -> Object:
        before = self._objects.get(resource, key)
        _check_version(before, change)
        change = {name: value for name, value in change.items() if name != "status"}
        after = merge_patched(before, change)
        return self._objects.replace(resource, key, after, owner)

    def _apply(self, resource: Resource, key: Key, body: Object, owner: Owner) -> Object:
        before = self._objects.find(resource, key)
        status = owner[2] == "status"
        if before is None:
            if status:
                raise NotFound(f"{resource.plural} {key[1]!r} not found")
            return self._create(resource, key, body, owner)
        _check_version(before, body)
        if status:
            body = {"status": body.get("status", {})}
        else:
            body = {name: value for name, value in body.items() if name != "status"}
        owned = ownership.paths_of(body)
        others = self._objects.owned_by_others(resource, key, owner)
        left_out = self._objects.owned_by(resource, key, owner) - owned - others
        after = ownership.merged(ownership.without(before, left_out), body)
        return self._objects.replace(resource, key, after, owner, applied=owned)

    def _check_namespace(self, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            return
        found = self._objects.find(NAMESPACES, ("", namespace))
        if found is None:
            raise NotFound(f"namespaces {namespace!r} not found")
        if "deletionTimestamp" in found["metadata"]:
            raise NamespaceTerminating(f"namespace {namespace!r} is being terminated")


def _selected(body: Object, namespace: str | None, matches: Matcher) -> bool:
    metadata: dict[str, Any] = body["metadata"]
    in_sight = namespace is None or metadata.get("namespace") == namespace
    return in_sight and matches(metadata.get("labels") or {})


def _check_version(before: Object, body: Object) -> None:
    metadata = body.get("metadata", {})
    for field in ("resourceVersion", "uid"):
        wanted = metadata.get(field)
        if wanted and wanted != before["metadata"][field]:
            raise Conflict(f"{before['metadata']['name']}: the {field} is another; read it again")
