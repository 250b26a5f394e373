"""Arrays of values as parameters of statements, written as one literal each.

Statements for whole batches pass thousands of values. psycopg asks of each how it is written and
whether it wants quotes, which takes several times as long as writing it.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import ARRAY, Dialect, TypeDecorator
from sqlalchemy.types import TypeEngine


class ArrayOf(TypeDecorator[Sequence[Any]]):
    """A one-dimensional array, as a parameter only: of UUIDs, integers, texts, moments and None."""

    impl = ARRAY
    cache_ok = True

    def __init__(self, item_type: TypeEngine[Any] | type[TypeEngine[Any]]) -> None:
        super().__init__(item_type)
        self.item_type = item_type  # compiled statements are kept by it

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[Any] | None], str | None]:
        return lambda values: None if values is None else literal(values)


def literal(values: Sequence[Any]) -> str:
    """Return values as PostgreSQL writes an array in text.

    Raises:
        KeyError: a value of another type.
    """
    return "{" + ",".join([_WRITERS[type(value)](value) for value in values]) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_WRITERS: dict[type, Callable[[Any], str]] = {
    uuid.UUID: attrgetter("hex"),
    int: str,
    str: _quoted,
    datetime: lambda moment: f'"{moment.isoformat()}"',
    type(None): lambda _: "NULL",
}
