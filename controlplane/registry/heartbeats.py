"""One hash in the store, one field a publisher: the form of every table of this package."""

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

    def withdraw(self, store: Store, field: str) -> None:
        """Take it back."""
        store.hdel(self.key, field)

    def read(
        self, store: Store, now: float, *, stale_seconds: float = STALE_SECONDS
    ) -> list[Record]:
        """Return what was said within `stale_seconds` before `now`, in order of field."""
        found = sorted(store.hgetall(self.key).items())
        records = [msgspec.json.decode(value, type=self.record) for _, value in found]
        return [record for record in records if now - record.published_at <= stale_seconds]
