"""Copies and merge patches of JSON values: pure, for `objects`."""

from typing import Any

from controlplane.cluster import Object


def copied(body: Object) -> Object:
    """Return a copy that shares nothing with the object; quicker than `deepcopy`."""
    return {name: _copied(field) for name, field in body.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return copied(value)
    if isinstance(value, list | tuple):
        return [_copied(element) for element in value]
    return value


def merge_patched(value: Any, change: Object) -> Object:
    """Return `value` with a merge patch (RFC 7386) in it: null removes, lists are replaced."""
    out = dict(value) if isinstance(value, dict) else {}
    for name, field in change.items():
        if field is None:
            out.pop(name, None)
        elif isinstance(field, dict):
            out[name] = merge_patched(out.get(name), field)
        else:
            out[name] = field
    return out
