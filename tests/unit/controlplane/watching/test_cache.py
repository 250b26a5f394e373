"""The cache: typed, indexed, and its changes are told once."""

import threading
from typing import Any

import pytest

from controlplane.cluster import PODS, Object, WatchEvent
from controlplane.watching.cache import Broken, Cache, Change


def pod(name: str, version: int, owner: str = "a") -> Object:
    return {
        "metadata": {
            "namespace": "n",
            "name": name,
            "resourceVersion": str(version),
            "labels": {"owner": owner},
        }
    }


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


def test_the_watch_s_echo_of_a_write_is_not_parsed_again() -> None:
    parsed: list[Object] = []
    cache: Cache[int] = Cache(PODS, lambda body: parsed.append(body) or len(parsed))
    cache.assume(pod("p", 1))
    cache.apply(WatchEvent("ADDED", pod("p", 1)))
    cache.replace([pod("p", 1)], "1")
    assert cache.get("n", "p") == 1


def test_a_write_that_the_watch_has_echoed_goes_with_the_next_list(cache: Cache[Object]) -> None:
    cache.assume(pod("p", 5))
    cache.apply(WatchEvent("ADDED", pod("p", 5)))
    cache.replace([], "4")
    assert cache.get("n", "p") is None


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({"status": {"phase": "Running"}}, False),
        ({"spec": {"drain": "enough"}}, True),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, True),
    ],
)
def test_what_is_asked_for_is_told_from_what_happened(changed: Object, asked: bool) -> None:
    before: Object = {"metadata": {}, "spec": {}, "status": {}}
    assert Change(before, before | changed).asked is asked
    assert not Change(None, before | changed).asked


def test_what_does_not_parse_is_there_but_not_listed() -> None:
    cache: Cache[Any] = Cache(PODS, lambda body: body["spec"], indexes={"owner": owner_of})
    cache.replace([pod("p", 1)], "1")
    assert isinstance(cache.get("n", "p"), Broken)
    assert cache.list() == []
    assert [it.error for it in cache.broken()] == ["'spec'"]
    assert cache.broken_by("owner", "a") == cache.broken()


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


def test_changes_are_told_in_their_order_whoever_brings_them(cache: Cache[Object]) -> None:
    told: list[Change] = []
    second_is_there = threading.Event()

    def slowly(change: Change) -> None:
        if not told:
            second_is_there.wait(0.2)
        told.append(change)
        second_is_there.set()

    cache.subscribe(slowly)
    first = threading.Thread(target=cache.assume, args=(pod("p", 1),))
    second = threading.Thread(target=cache.apply, args=(WatchEvent("MODIFIED", pod("p", 2)),))
    first.start()
    while cache.body("n", "p") is None:
        pass
    second.start()
    for thread in (first, second):
        thread.join(5)
    assert [it.old is None for it in told] == [True, False]


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


def test_an_event_that_is_told_again_brings_nothing_back(cache: Cache[Object]) -> None:
    cache.apply(WatchEvent("ADDED", pod("p", 2)))
    cache.apply(WatchEvent("DELETED", pod("p", 3)))
    cache.apply(WatchEvent("MODIFIED", pod("p", 2)))
    assert cache.get("n", "p") is None
