"""Bounds on a caller's JSON schema, checked before any parser sees it. `chat` calls it.

The parsers below follow references by native recursion: a chain that is long enough overflows the
stack and takes the whole process with it. They would also follow references to other documents.
"""

from collections.abc import Iterator
from typing import Any

from worker.errors import InvalidRequest

MAX_DEPTH = 64  # objects and arrays
MAX_PATH = 1024  # a fifth of what has been seen to overflow a stack of 8 MiB
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def check_schema(schema: object, *, param: str) -> None:
    """Raises InvalidRequest for a schema nested too deeply, by itself or through references, and
    for references that leave it."""
    references: set[str] = set()
    depth = 0
    for node, at in _objects(schema):
        depth = max(depth, at)
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param=param)
        for reference in (node.get(keyword) for keyword in _REFERENCES):
            if isinstance(reference, str):
                references.add(reference)
    outside = sorted(r for r in references if not r.startswith("#"))
    if outside:
        raise InvalidRequest(f"{param}: {outside[0]!r} leads out of the schema", param=param)
    # A path that takes a reference twice is a cycle, and those the parsers cut.
    if (len(references) + 1) * depth > MAX_PATH:
        raise InvalidRequest(
            f"{param} has too many references ({len(references)}) for its depth ({depth})",
            param=param,
        )


def _objects(schema: object) -> Iterator[tuple[dict[str, Any], int]]:
    """Every object in `schema` and how deep it lies. Keeps a stack of its own."""
    stack = [(schema, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, dict):
            yield node, depth
            stack += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, list):
            stack += [(value, depth + 1) for value in node]
