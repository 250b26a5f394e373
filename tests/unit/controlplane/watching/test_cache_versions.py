"""The cache: the newest version wins, whoever brings it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cluster import PODS, Object, WatchEvent
from controlplane.watching.cache import Cache


def pod(name: str, version: int) -> Object:
    return {"metadata": {"namespace": "n", "name": name, "resourceVersion": str(version)}}


def bookmark(version: int) -> WatchEvent:
    return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def version_of(cache: Cache[Object], name: str = "p") -> int | None:
    body = cache.body("n", name)
    return None if body is None else int(body["metadata"]["resourceVersion"])


@pytest.fixture
def cache() -> Cache[Object]:
    return Cache(PODS, lambda body: body)


def test_an_own_write_is_read_at_once(cache: Cache[Object]) -> None:
    cache.replace([pod("p", 1)], "1")
    cache.assume(pod("p", 2))
    assert version_of(cache) == 2


def test_older_news_does_not_undo_an_own_write(cache: Cache[Object]) -> None:
    cache.replace([pod("p", 1)], "1")
    cache.assume(pod("p", 5))
    cache.apply(WatchEvent("MODIFIED", pod("p", 3)))
    assert version_of(cache) == 5


def test_the_late_deletion_of_a_namesake_does_not_remove_its_successor(
    cache: Cache[Object],
) -> None:
    cache.replace([pod("p", 1)], "1")
    cache.assume(pod("p", 5))
    cache.apply(WatchEvent("DELETED", pod("p", 4)))
    assert version_of(cache) == 5


def test_a_late_answer_does_not_revive_what_the_watch_saw_deleted(cache: Cache[Object]) -> None:
    cache.replace([pod("p", 1)], "1")
    cache.apply(WatchEvent("MODIFIED", pod("p", 2)))
    cache.apply(WatchEvent("DELETED", pod("p", 3)))
    cache.assume(pod("p", 2))
    assert version_of(cache) is None


def test_a_list_older_than_an_own_write_keeps_it(cache: Cache[Object]) -> None:
    cache.assume(pod("new", 7))
    cache.replace([pod("p", 1)], "5")
    assert (version_of(cache, "new"), version_of(cache)) == (7, 1)


def test_an_own_write_that_a_second_list_lacks_is_gone(cache: Cache[Object]) -> None:
    cache.assume(pod("new", 7))
    cache.replace([], "5")
    cache.replace([], "6")
    assert version_of(cache, "new") is None


def test_a_list_is_the_truth_after_versions_went_back(cache: Cache[Object]) -> None:
    cache.replace([pod("p", 90), pod("q", 91)], "100")
    cache.replace([pod("p", 40)], "50")
    assert (version_of(cache), version_of(cache, "q")) == (40, None)
    cache.apply(WatchEvent("MODIFIED", pod("p", 51)))
    assert version_of(cache) == 51


def test_a_bookmark_only_moves_what_has_been_told(cache: Cache[Object]) -> None:
    cache.replace([], "1")
    cache.apply(bookmark(9))
    cache.assume(pod("p", 8))
    assert version_of(cache) is None


@given(st.data())
def test_the_cache_ends_at_the_truth_however_own_writes_and_news_interleave(
    data: st.DataObject,
) -> None:
    """A history of one object; the watch tells all of it in order, answers to writes come late."""
    kinds = data.draw(st.lists(st.sampled_from(["write", "delete"]), max_size=12))
    news: list[WatchEvent] = []
    answers: list[Object] = []
    alive = False
    for version, kind in enumerate(kinds, start=2):
        if kind == "write":
            news.append(WatchEvent("MODIFIED" if alive else "ADDED", pod("p", version)))
            answers.append(pod("p", version))
            alive = True
        elif alive:
            news.append(WatchEvent("DELETED", pod("p", version)))
            alive = False
    cache: Cache[Object] = Cache(PODS, lambda body: body)
    cache.replace([], "1")
    late = data.draw(st.permutations(answers))
    while news or late:
        if late and (not news or data.draw(st.booleans())):
            cache.assume(late.pop(0))
        else:
            cache.apply(news.pop(0))
    expected = None
    for version, kind in enumerate(kinds, start=2):
        expected = version if kind == "write" else None
    assert version_of(cache) == expected
