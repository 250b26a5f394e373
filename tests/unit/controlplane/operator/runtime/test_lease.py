"""The lease: one holder, and a pause between the old one's last act and the next one's first."""

import pytest
from support.lease_store import LEASE_SECONDS, Clock, LeaseStore, elector


@pytest.fixture
def store() -> LeaseStore:
    return LeaseStore()


def holder(store: LeaseStore) -> str:
    assert store.body is not None
    return str(store.body["spec"].get("holderIdentity", ""))


def test_the_first_takes_it_and_the_second_waits(store: LeaseStore) -> None:
    first, second = (elector(store, name, Clock(0.0)) for name in "ab")
    first.step()
    second.step()
    assert (first.is_leading(), second.is_leading(), holder(store)) == (True, False, "a")


def test_a_holder_that_renews_keeps_it(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    for _ in range(20):
        first.step()
        second.step()
        clock.now += 5
    assert (first.is_leading(), second.is_leading()) == (True, False)


def test_a_silent_holder_is_succeeded_and_the_transition_counted(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    first.step()
    second.step()
    clock.now += LEASE_SECONDS + 0.1
    second.step()
    assert (first.is_leading(), second.is_leading()) == (False, True)
    assert second.transitions == first.transitions + 1
    assert first.lost.is_set()


def test_a_lead_that_was_lost_is_not_taken_up_again(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first = elector(store, "a", clock)
    first.step()
    clock.now += LEASE_SECONDS
    assert not first.is_leading()
    first.step()
    assert not first.is_leading()


def test_a_holder_whose_lease_was_deleted_takes_it_anew(store: LeaseStore) -> None:
    first = elector(store, "a", Clock(0.0))
    first.step()
    store.body = None
    first.step()
    assert first.is_leading()
    assert holder(store) == "a"


def test_a_holder_that_ends_gives_it_up(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    first.step()
    second.step()
    first.stop()
    second.step()
    assert second.is_leading()
