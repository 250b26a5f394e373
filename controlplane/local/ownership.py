"""Who owns which field of an object, and what an apply therefore changes: pure, for `objects`.

The rules of server-side apply, forced: an applied field is the applier's; what it applied before
and leaves out now goes, unless somebody else owns it too; who changes a value takes it from others.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

from controlplane.cluster import Object

# Names of fields; an element of a keyed list is the tuple of its keys' values.
Path: TypeAlias = tuple[Any, ...]
Paths: TypeAlias = frozenset[Path]

# Lists whose elements are owned one by one, by what tells them apart. Others are owned whole.
_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "ownerReferences": ("uid",),
}
# The server's own; nobody owns them.
_SERVERS = ("apiVersion", "kind")
_SERVERS_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)


def paths_of(body: Object) -> Paths:
    """Return the leaves of an object that can be owned."""
    owned = {name: value for name, value in body.items() if name not in _SERVERS}
    metadata = owned.pop("metadata", {})
    metadata = {name: it for name, it in metadata.items() if name not in _SERVERS_METADATA}
    return frozenset([*_leaves(owned, ()), *(_leaves(metadata, ("metadata",)) if metadata else ())])


def merged(live: Any, applied: Any, name: str = "") -> Any:
    """Return `live` with every field of `applied`; keyed lists are merged by key."""
    if isinstance(live, dict) and isinstance(applied, dict):
        out = dict(live)
        for field, value in applied.items():
            out[field] = merged(live[field], value, field) if field in live else value
        return out
    keys = _KEYS.get(name)
    if keys and isinstance(live, list) and isinstance(applied, list):
        elements = {_key(element, keys): element for element in live}
        for element in applied:
            key = _key(element, keys)
            elements[key] = merged(elements[key], element) if key in elements else element
        return list(elements.values())
    return applied


def without(value: Object, gone: Paths) -> Object:
    """Return an object without these leaves, and without what they leave empty.

    Where somebody has put a branch in a leaf's place, the branch stays.
    """
    # An element before its fields: without its key it would not be found.
    for path in sorted(gone, key=len):
        value = _without(value, path)
    return value


def changed(before: Object, after: Object) -> Paths:
    """Return the leaves of `after` that have another value, or none, in `before`."""
    return frozenset(path for path in paths_of(after) if _at(before, path) != _at(after, path))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for name, field in value.items():
            yield from _leaves(field, (*path, name))
        return
    keys = _KEYS.get(path[-1]) if path and isinstance(path[-1], str) else None
    if keys and isinstance(value, list) and value:
        for element in value:
            here = (*path, _key(element, keys))
            yield here
            yield from _leaves(element, here)
        return
    if path:
        yield path


def _key(element: Object, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(element.get(key) for key in keys)


def _find(elements: list[Any], key: tuple[Any, ...], name: str) -> int | None:
    keys = _KEYS[name]
    return next((at for at, it in enumerate(elements) if _key(it, keys) == key), None)


def _at(value: Any, path: Path) -> Any:
    for at, step in enumerate(path):
        if isinstance(step, tuple):
            index = _find(value, step, path[at - 1]) if isinstance(value, list) else None
            value = None if index is None else value[index]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _without(value: Any, path: Path, name: str = "") -> Any:
    step, rest = path[0], path[1:]
    if isinstance(step, tuple):
        at = _find(value, step, name) if isinstance(value, list) else None
        if at is None:
            return value
        kept = [_without(value[at], rest)] if rest else []
        return [*value[:at], *kept, *value[at + 1 :]]
    if not isinstance(value, dict) or step not in value:
        return value
    if not rest and isinstance(value[step], dict) and value[step]:
        return value
    left = _without(value[step], rest, step) if rest else None
    if left is value[step]:
        return value
    out = {field: it for field, it in value.items() if field != step}
    return out if left is None or left in ({}, []) else {**out, step: left}
