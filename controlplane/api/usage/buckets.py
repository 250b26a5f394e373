"""Buckets of time and their pages, as OpenAI's usage API has them. Pure; called by `organization`.

Buckets begin at whole minutes, hours or days, UTC. Those are told that the asked time touches, each
of them whole, so that pages and later questions add up.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from controlplane.errors import UnprocessableRequest

BucketWidth = Literal["1m", "1h", "1d"]


@dataclass(frozen=True, slots=True)
class Width:
    """A width of buckets, and how many of them a page has: unless asked, and at most."""

    span: timedelta
    usual_buckets: int
    most_buckets: int


USAGE_WIDTHS: Final[dict[BucketWidth, Width]] = {
    "1m": Width(timedelta(minutes=1), 60, 1440),
    "1h": Width(timedelta(hours=1), 24, 168),
    "1d": Width(timedelta(days=1), 7, 31),
}
COST_WIDTH: Final = Width(timedelta(days=1), 7, 180)
_PAGE = re.compile(r"page_([0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Window:
    """One page of buckets: from `since` until before `until`; `next_page` None: the last."""

    since: datetime
    until: datetime
    width: timedelta
    next_page: str | None

    def starts(self) -> list[datetime]:
        """Return the first moment of each bucket, oldest first."""
        count = (self.until - self.since) // self.width
        return [self.since + index * self.width for index in range(count)]


def window(
    *, start_time: int, end_time: int, width: Width, limit: int | None, page: str | None
) -> Window:
    """Return the page that is asked for; times are Unix seconds, the end is exclusive.

    Raises:
        UnprocessableRequest: the end is not after the start, too many buckets for one page, or
            `page` is not of this question.
    """
    if end_time <= start_time:
        raise UnprocessableRequest("end_time must be after start_time.", param="end_time")
    span = int(width.span.total_seconds())
    if limit is not None and not 1 <= limit <= width.most_buckets:
        raise UnprocessableRequest(
            f"limit must be from 1 to {width.most_buckets} for this bucket_width.", param="limit"
        )
    first = start_time // span * span
    end = -(-end_time // span) * span
    if page is not None:
        first = _resumed(page, first, end, span)
    until = min(end, first + (limit or width.usual_buckets) * span)
    return Window(
        since=datetime.fromtimestamp(first, UTC),
        until=datetime.fromtimestamp(until, UTC),
        width=width.span,
        next_page=f"page_{until}" if until < end else None,
    )


def _resumed(page: str, first: int, end: int, span: int) -> int:
    match = _PAGE.fullmatch(page)
    start = int(match[1]) if match else -1
    if start % span or not first <= start < end:
        raise UnprocessableRequest(
            "page is not one of this question: pass next_page of the answer before, and the other"
            " parameters unchanged.",
            param="page",
        )
    return start
