"""Pages of buckets: whole, in order, and each exactly once."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.usage.buckets import USAGE_WIDTHS, window
from controlplane.errors import UnprocessableRequest

DAY = 86_400


@given(
    start=st.integers(0, 10**9),
    seconds=st.integers(1, 40 * DAY),
    width=st.sampled_from(["1h", "1d"]),
    limit=st.integers(1, 31) | st.none(),
)
def test_pages_cover_the_asked_time_once(
    start: int, seconds: int, width: str, limit: int | None
) -> None:
    of = USAGE_WIDTHS[width]  # type: ignore[index]
    span = of.span / timedelta(seconds=1)
    starts: list[float] = []
    page = None
    while True:
        found = window(start_time=start, end_time=start + seconds, width=of, limit=limit, page=page)
        assert 1 <= len(found.starts()) <= (limit or of.usual_buckets)
        starts += [moment.timestamp() for moment in found.starts()]
        page = found.next_page
        if page is None:
            break
    assert starts[0] <= start < starts[0] + span
    assert starts[-1] < start + seconds <= starts[-1] + span
    assert starts == [starts[0] + index * span for index in range(len(starts))]


@pytest.mark.parametrize(
    "page",
    [
        "",
        "page_",
        "page_x",
        "page_-1",
        "page_86400 ",
        "page_86399",
        "page_0",
        "page_864000",
        "86400",
    ],
)
def test_a_page_of_another_question_is_refused(page: str) -> None:
    with pytest.raises(UnprocessableRequest) as refusal:
        window(start_time=DAY, end_time=3 * DAY, width=USAGE_WIDTHS["1d"], limit=None, page=page)
    assert refusal.value.param == "page"
