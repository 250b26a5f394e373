"""What a watch has told, typed and indexed: all that controllers read.

A `Reflector` feeds it, the `Executor` writes its own results through with `assume`, so that a
controller reads its own writes at once. Versions are compared as numbers: what is newer wins, and
what the watch has told already is never undone by a late answer to a write.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from pydantic import ValidationError

from controlplane.cluster import Object, Resource, WatchEvent, key_of
from controlplane.watching.metrics import BROKEN_OBJECTS, CACHED_OBJECTS

T = TypeVar("T")
Key: TypeAlias = tuple[str, str]  # namespace, which is empty for a cluster's object; name
Index: TypeAlias = Callable[[Object], str | None]
_NAMESPACE = ""  # name of the index that every cache has


@dataclass(frozen=True)
class Broken:
    """An object that does not parse. It exists, and may hold GPUs: never treat it as absent."""

    body: Object = field(repr=False)
    error: str


class Change(NamedTuple):
    """An object before and after; None: it was, or is, not there."""

    old: Object | None
    new: Object | None

    @property
    def body(self) -> Object:
        """The newest form there is."""
        body = self.new if self.new is not None else self.old
        assert body is not None
        return body

    @property
    def key(self) -> Key:
        """The object's key."""
        return key_of(self.body)

    @property
    def asked(self) -> bool:
        """Whether something else is asked for now: another spec, or the object's end."""
        if self.old is None or self.new is None:
            return False
        ends = "deletionTimestamp" in self.new["metadata"]
        began = "deletionTimestamp" in self.old["metadata"]
        return ends != began or self.old.get("spec") != self.new.get("spec")


@dataclass
class _Entry(Generic[T]):
    body: Object
    value: T | Broken
    version: int
    assumed: bool  # written by us, not told by the watch yet


class Cache(Generic[T]):
    """All objects of one resource, as far as the watch has told; safe for use by many threads.

    What it returns is shared: read it, never change it.
    """

    def __init__(
        self,
        resource: Resource,
        parse: Callable[[Object], T],
        *,
        indexes: Mapping[str, Index] | None = None,
    ) -> None:
        """Begin empty.

        Args:
            parse: an object's typed form; called once a change. What it cannot read is `Broken`.
            indexes: by name, the word of an object that `by` finds it under; None: under none.
        """
        self.resource = resource
        self.synced = threading.Event()  # set once everything there is has been listed
        self._parse = parse
        self._index_of = dict(indexes or {})
        self._entries: dict[Key, _Entry[T]] = {}
        # By an index's name and word; in order of arrival, hence no sets.
        self._indexed: dict[tuple[str, str], dict[Key, None]] = defaultdict(dict)
        self._told_version = 0
        self._handlers: list[Callable[[Change], None]] = []
        self._lock = threading.Lock()
        self._in_order = threading.Lock()  # held over a change and its telling
        CACHED_OBJECTS.labels(resource.plural).set_function(lambda: len(self._entries))
        BROKEN_OBJECTS.labels(resource.plural).set_function(lambda: len(self.broken()))

    @property
    def told_version(self) -> int:
        """Up to which version the watch has told everything; our own writes may be newer."""
        return self._told_version

    def get(self, namespace: str, name: str) -> T | Broken | None:
        """Return an object, or None when there is none."""
        with self._lock:
            entry = self._entries.get((namespace, name))
        return None if entry is None else entry.value

    def body(self, namespace: str, name: str) -> Object | None:
        """Return an object as the API server gave it, without `managedFields`."""
        with self._lock:
            entry = self._entries.get((namespace, name))
        return None if entry is None else entry.body

    def list(self, namespace: str | None = None) -> Sequence[T]:
        """Return all objects that parse, of one namespace if one is given."""
        return [it for it in self._values(namespace) if not isinstance(it, Broken)]

    def broken(self, namespace: str | None = None) -> Sequence[Broken]:
        """Return all objects that do not parse."""
        return [it for it in self._values(namespace) if isinstance(it, Broken)]

    def by(self, index: str, word: str) -> Sequence[T]:
        """Return the objects that parse and that an index has under a word, by key."""
        with self._lock:
            keys = sorted(self._indexed.get((index, word), ()))
            found = [self._entries[key].value for key in keys]
        return [it for it in found if not isinstance(it, Broken)]

    def broken_by(self, index: str, word: str) -> Sequence[Broken]:
        """Return the objects that do not parse and that an index has under a word, by key."""
        with self._lock:
            keys = sorted(self._indexed.get((index, word), ()))
            found = [self._entries[key].value for key in keys]
        return [it for it in found if isinstance(it, Broken)]

    def subscribe(self, handler: Callable[[Change], None]) -> None:
        """Call `handler` after every change, in the order of the changes and in the thread that
        brought them. It must be quick; it may read this cache, and must not `assume`."""
        self._handlers.append(handler)

    def assume(self, body: Object) -> None:
        """Take the API server's answer to a write of ours for the truth until the watch tells."""
        if self._knows(body, told=False):
            return
        entry = self._entry(body, assumed=True)
        with self._in_order:
            with self._lock:
                # What the watch has passed it has told: the object may have changed or gone since.
                told = entry.version <= self._told_version
                change = None if told else self._put(key_of(body), entry, entry.version)
            self._tell([change])

    def apply(self, event: WatchEvent) -> None:
        """Take in what a watch told; what it has told before is old, and may be gone since."""
        version = _version(event.object)
        entry = None
        if event.type in ("ADDED", "MODIFIED"):
            if self._knows(event.object, told=True):
                return
            entry = self._entry(event.object, assumed=False)
        with self._in_order:
            with self._lock:
                if version <= self._told_version:
                    return
                self._told_version = version
                bookmark = event.type == "BOOKMARK"
                change = None if bookmark else self._put(key_of(event.object), entry, version)
            self._tell([change])

    def replace(self, bodies: Iterable[Object], resource_version: str) -> None:
        """Take in a complete list: what it lacks is gone, but for our newest writes.

        A list is the truth even where versions went back, as a restored backup's do.
        """
        version = int(resource_version)
        entries = {key_of(body): self._listed(body) for body in bodies}
        changes = []
        with self._in_order:
            with self._lock:
                self._told_version = version
                for key in [*self._entries.keys() | entries.keys()]:
                    known, entry = self._entries.get(key), entries.get(key)
                    if known is not None and known.assumed and known.version > version:
                        known.assumed = False  # the watch that follows tells it, or the next list
                    else:
                        changes.append(self._set(key, entry))
            self._tell(changes)
        self.synced.set()

    def _knows(self, body: Object, *, told: bool) -> bool:
        """Whether this very version is here; `told`: by the watch. Reading it again costs much."""
        version = _version(body)
        with self._lock:
            known = self._entries.get(key_of(body))
            if known is None or known.version != version:
                return False
            if told:
                self._told_version = max(self._told_version, version)
                known.assumed = False
            return True

    def _listed(self, body: Object) -> _Entry[T]:
        with self._lock:
            known = self._entries.get(key_of(body))
        if known is not None and known.version == _version(body):
            return replace(known, assumed=False)
        return self._entry(body, assumed=False)

    def _put(self, key: Key, entry: _Entry[T] | None, version: int) -> Change | None:
        known = self._entries.get(key)
        if known is not None and known.version > version:
            return None
        return self._set(key, entry)

    def _set(self, key: Key, entry: _Entry[T] | None) -> Change | None:
        known = self._entries.get(key)
        if known is not None and entry is not None and known.version == entry.version:
            known.assumed = known.assumed and entry.assumed
            return None
        if known is not None:
            for place in self._places(known.body):
                self._indexed[place].pop(key, None)
                if not self._indexed[place]:
                    del self._indexed[place]
            del self._entries[key]
        if entry is not None:
            for place in self._places(entry.body):
                self._indexed[place][key] = None
            self._entries[key] = entry
        if known is None and entry is None:
            return None
        return Change(None if known is None else known.body, None if entry is None else entry.body)

    def _places(self, body: Object) -> Iterator[tuple[str, str]]:
        yield _NAMESPACE, key_of(body)[0]
        for name, index in self._index_of.items():
            word = index(body)
            if word is not None:
                yield name, word

    def _tell(self, changes: Iterable[Change | None]) -> None:
        for change in changes:
            if change is not None:
                for handler in self._handlers:
                    handler(change)

    def _entry(self, body: Object, *, assumed: bool) -> _Entry[T]:
        metadata = {word: it for word, it in body["metadata"].items() if word != "managedFields"}
        slim = {**body, "metadata": metadata}
        value: T | Broken
        try:
            value = self._parse(slim)
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            value = Broken(slim, str(error))
        return _Entry(slim, value, _version(body), assumed)

    def _values(self, namespace: str | None) -> Sequence[T | Broken]:
        with self._lock:
            if namespace is None:
                return [entry.value for entry in self._entries.values()]
            keys = self._indexed.get((_NAMESPACE, namespace), ())
            return [self._entries[key].value for key in keys]


def _version(body: Object) -> int:
    return int(body["metadata"]["resourceVersion"])
