"""The cache: the newest version wins, whoever brings it, and changes are told once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cluster import PODS, Object, WatchEvent
from controlplane.operator.runtime.cache import Broken, Cache, Change


def pod(name: str, version: int, owner: str = "a") -> Object:
    return {
        "metadata": {
            "namespace": "n",
            "name": name,
            "resourceVersion": str(version),
            "labels": {"owner": owner},
        }
    }


def bookmark(version: int) -> WatchEvent:
    return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def version_of(cache: Cache[Object], name: str = "p") -> int | None:
    body = cache.body("n", name)
    return None if body is None else int(body["metadata"]["resourceVersion"])


@pytest.fixture
def cache() -> Cache[Object]:
    return Cache(PODS, lambda body: body, indexes={"owner": owner_of})


def owner_of(body: Object) -> str:
    return str(body["metadata"]["labels"]["owner"])


def test_an_object_is_parsed_once_a_change() -> None:
    parsed: list[Object] = []
    cache: Cache[int] = Cache(PODS, lambda body: parsed.append(body) or len(parsed))
    cache.replace([pod("p", 1)], "1")
    assert [cache.get("n", "p"), cache.get("n", "p")] == [1, 1]
    cache.apply(WatchEvent("MODIFIED", pod("p", 2)))
    assert cache.get("n", "p") == 2


def test_what_does_not_parse_is_there_but_not_listed() -> None:
    cache: Cache[Any] = Cache(PODS, lambda body: body["spec"], indexes={"owner": owner_of})
    cache.replace([pod("p", 1)], "1")
    assert isinstance(cache.get("n", "p"), Broken)
    assert cache.list() == []
    assert [it.error for it in cache.broken()] == ["'spec'"]
    assert cache.broken_by("owner", "a") == cache.broken()


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


def test_changes_are_told_once_with_what_was_before(cache: Cache[Object]) -> None:
    told: list[Change] = []
    cache.subscribe(told.append)
    cache.replace([pod("p", 1)], "1")
    cache.assume(pod("p", 2))
    cache.apply(WatchEvent("MODIFIED", pod("p", 2)))
    cache.replace([pod("p", 2)], "3")
    cache.apply(WatchEvent("DELETED", pod("p", 4)))
    versions = [tuple(it and it["metadata"]["resourceVersion"] for it in change) for change in told]
    assert versions == [(None, "1"), ("1", "2"), ("2", None)]
    assert told[-1].key == ("n", "p")


def test_an_index_follows_its_objects(cache: Cache[Object]) -> None:
    cache.replace([pod("p", 1), pod("q", 1, "b"), pod("o", 1)], "1")
    assert [it["metadata"]["name"] for it in cache.by("owner", "a")] == ["o", "p"]
    cache.apply(WatchEvent("MODIFIED", pod("p", 2, "b")))
    assert [it["metadata"]["name"] for it in cache.by("owner", "b")] == ["p", "q"]
    cache.replace([], "3")
    assert cache.by("owner", "b") == []


def test_managed_fields_are_not_kept(cache: Cache[Object]) -> None:
    body = pod("p", 1)
    body["metadata"]["managedFields"] = [{"manager": "x"}]
    cache.replace([body], "1")
    kept = cache.body("n", "p")
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert "managedFields" in body["metadata"]


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
