"""What a budget still allows, and which period a moment lies in. Pure; called by `budgets`.

Days and months are those of UTC.
"""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

Scope = Literal["tenant", "project", "key"]
Period = Literal["day", "month", "total"]

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_PERIOD_WORDS = {"day": "daily", "month": "monthly", "total": "total"}


@dataclass(slots=True)
class Limit:
    """A budget's figures, in p$. `added_p` is what was spent of it since it was read."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    scope: Scope
    project_id: uuid.UUID | None
    api_key_id: uuid.UUID | None
    period: Period
    limit_p: int
    spent_p: int
    held_p: int
    period_started_at: datetime
    thresholds: list[int] = field(default_factory=list)
    added_p: int = 0

    @property
    def available_p(self) -> int:
        """What may still be held; below zero when the limit was lowered meanwhile."""
        return self.limit_p - self.spent_p - self.held_p

    @property
    def renews_at(self) -> datetime | None:
        """When the next period begins; None for a budget that never renews."""
        return period_end(self.period, self.period_started_at)

    @property
    def words(self) -> str:
        """The budget as a refusal names it."""
        whose = "account" if self.scope == "tenant" else self.scope
        name = self.project_id or self.api_key_id
        return f"the {_PERIOD_WORDS[self.period]} budget of this {whose}" + (
            f" ({name})" if name else ""
        )

    def roll(self, now: datetime) -> None:
        """Begin the period of `now` if it is a later one; a clock gone back changes nothing."""
        start = period_start(self.period, now)
        if start > self.period_started_at:
            self.period_started_at = start
            self.spent_p = 0

    def spend(self, amount_p: int) -> None:
        """Count an amount as spent."""
        self.spent_p += amount_p
        self.added_p += amount_p

    def crossed(self) -> list[int]:
        """Return the thresholds, in percent of the limit, that `added_p` has reached."""
        before_p = self.spent_p - self.added_p
        return [
            percent
            for percent in self.thresholds
            if before_p * 100 < percent * self.limit_p <= self.spent_p * 100
        ]


def period_start(period: Period, now: datetime) -> datetime:
    """Return when the period that `now` lies in began."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day
    return day.replace(day=1) if period == "month" else BEGINNING


def period_end(period: Period, start: datetime) -> datetime | None:
    """Return when the period that began at `start` ends; None: never."""
    if period == "total":
        return None
    if period == "day":
        return start + timedelta(days=1)
    return (start + timedelta(days=31)).replace(day=1)
