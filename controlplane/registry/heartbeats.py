"""One hash in the store, one field a publisher: the form of every table of this package.

A record that cannot be read is passed over and counted, so that one publisher's defect, or another
version's words, never blinds readers to all the others.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Meta
from prometheus_client import Counter

from controlplane.store import Store

STALE_SECONDS = 10.0

# A store is nobody's schema: what is read is held to these.
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# No NUL, which PostgreSQL cannot keep, nor a line's end, which HTTP cannot.
Text: TypeAlias = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$", max_length=1000)]
# From 1970 to 2286.
Moment: TypeAlias = Annotated[float, Meta(ge=0, lt=1e10)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, lt=1e7)]

UNREADABLE = Counter(
    "flashplane_registry_unreadable",
    "Records of the registry that could not be read, each time they were met",
    ["table"],
)

_log = logging.getLogger(__name__)


class Heartbeat(Protocol):
    """What a table holds. `published_at` is seconds since 1970 UTC."""

    @property
    def published_at(self) -> float: ...


Record = TypeVar("Record", bound=Heartbeat)


@dataclass(frozen=True)
class Table(Generic[Record]):
    """A hash of records that are true only while they are repeated."""

    key: str
    record: type[Record]

    def publish(self, store: Store, field: str, record: Record) -> None:
        """Say it; to be repeated well within `STALE_SECONDS`."""
        store.hset(self.key, field, msgspec.json.encode(record))

    def publish_all(self, store: Store, records: Mapping[str, Record]) -> None:
        """Say them all, by field, in one round trip."""
        if records:
            encoded: dict[str | bytes, bytes | float | int | str] = {
                field: msgspec.json.encode(record) for field, record in records.items()
            }
            store.hset(self.key, mapping=encoded)

    def withdraw(self, store: Store, *fields: str) -> None:
        """Take them back."""
        if fields:
            store.hdel(self.key, *fields)

    def read(
        self, store: Store, now: float, *, stale_seconds: float = STALE_SECONDS
    ) -> list[Record]:
        """Return what was said within `stale_seconds` before `now`, in order of field.

        Raises:
            redis.RedisError: the store is down, or keeps something else under this key.
        """
        records = []
        for field, value in sorted(store.hgetall(self.key).items()):
            try:
                record = msgspec.json.decode(value, type=self.record)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                UNREADABLE.labels(self.key).inc()
                shown = {"table": self.key, "field": repr(field)[:200], "reason": str(error)[:200]}
                _log.debug("record_unreadable", extra=shown)
            else:
                records.append(record)
        return [record for record in records if now - record.published_at <= stale_seconds]
