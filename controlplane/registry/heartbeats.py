"""One hash in the store, one field a publisher: the form of every table of this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from controlplane.store import Store

STALE_SECONDS = 10.0


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
        """Return what was said within `stale_seconds` before `now`, in order of field."""
        found = sorted(store.hgetall(self.key).items())
        records = [msgspec.json.decode(value, type=self.record) for _, value in found]
        return [record for record in records if now - record.published_at <= stale_seconds]
