"""The price book in memory: which version and band hold for whom at a moment. Pure.

Made by `book` from rows and kept by the gateway, which asks it once a request.
"""

import bisect
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.errors import ModelNotFound
from controlplane.pricing.calendar import Calendar, band_at, next_change
from controlplane.pricing.drafts import ANY_MODEL, DEDICATED
from controlplane.pricing.rating import STANDARD, Price

Key = tuple[uuid.UUID | None, str, str]


@dataclass(frozen=True, slots=True)
class Version:
    """A published version. `prices` is by band; empty, it ends what its tenant had of its own."""

    id: uuid.UUID
    position: int
    key: Key
    effective_from: datetime
    calendar: Calendar | None
    prices: Mapping[str, Price]

    def price(self, at: datetime) -> Price:
        """Return the price of the band that holds at a moment."""
        band = STANDARD if self.calendar is None else band_at(self.calendar, at)
        return self.prices[band]


class PriceBook:
    """All versions up to a position. Never changes; `extended` is another book."""

    def __init__(self, versions: Iterable[Version] = ()) -> None:
        self.position = 0
        self._versions: dict[Key, list[Version]] = {}
        self._add(versions)

    def extended(self, versions: Iterable[Version]) -> "PriceBook":
        """Return this book with more versions; what they leave alone is shared."""
        book = PriceBook()
        book.position = self.position
        book._versions = dict(self._versions)
        book._add(versions)
        return book

    def _add(self, versions: Iterable[Version]) -> None:
        added: dict[Key, list[Version]] = {}
        for version in versions:
            added.setdefault(version.key, []).append(version)
            self.position = max(self.position, version.position)
        for key, more in added.items():
            every = [*self._versions.get(key, ()), *more]
            self._versions[key] = sorted(every, key=lambda version: version.effective_from)

    def price(
        self, model: str, path: str, at: datetime, tenant_id: uuid.UUID | None = None
    ) -> Price:
        """Return what a request of that moment costs, its band pinned.

        Raises:
            ModelNotFound: the model has no price on this path then.
        """
        return self.version(model, path, at, tenant_id).price(at)

    def version(
        self, model: str, path: str, at: datetime, tenant_id: uuid.UUID | None = None
    ) -> Version:
        """Return the version in force at `at`: the tenant's own before everybody's.

        On the dedicated path a model without a price has that of `ANY_MODEL`.

        Raises:
            ModelNotFound: the model has no price on this path then.
        """
        for key in _keys(model, path, tenant_id):
            versions = self._versions.get(key, [])
            index = bisect.bisect_right(versions, at, key=lambda version: version.effective_from)
            if index and versions[index - 1].prices:
                return versions[index - 1]
        raise ModelNotFound(f"The model {model!r} does not exist.", param="model")

    def next_change(
        self, model: str, path: str, at: datetime, tenant_id: uuid.UUID | None = None
    ) -> datetime | None:
        """Return when another price than that of `at` holds first; None when none is known of.

        Raises:
            ModelNotFound: the model has no price on this path at `at`.
        """
        now, moment = self.price(model, path, at, tenant_id), at
        while True:
            calendar = self.version(model, path, moment, tenant_id).calendar
            changes = list(self._starts(model, path, moment, tenant_id))
            if calendar is not None and (change := next_change(calendar, moment)) is not None:
                changes.append(change)
            if not changes:
                return None
            moment = min(changes)
            if self.price(model, path, moment, tenant_id) != now:
                return moment

    def _starts(
        self, model: str, path: str, after: datetime, tenant_id: uuid.UUID | None
    ) -> Iterator[datetime]:
        for key in _keys(model, path, tenant_id):
            for version in self._versions.get(key, []):
                if version.effective_from > after:
                    yield version.effective_from

    def models(self, path: str, at: datetime) -> list[str]:
        """Return the names of the models that have a price for all on `path` at `at`, sorted."""
        return sorted(
            model
            for (tenant_id, model, on_path), versions in self._versions.items()
            if tenant_id is None and on_path == path and versions[0].effective_from <= at
        )


def _keys(model: str, path: str, tenant_id: uuid.UUID | None) -> Iterator[Key]:
    for whose in (None,) if tenant_id is None else (tenant_id, None):
        yield whose, model, path
        if path == DEDICATED:
            yield whose, ANY_MODEL, path
