"""What jobs are told of volumes: bound claims alone, from when they were seen to their end."""

from collections.abc import Iterator

import pytest

from controlplane.cluster import Object
from controlplane.operator.bare.volumes import REPEATED_EVERY, VolumePublisher, seen
from controlplane.registry import volumes
from controlplane.registry.volumes import Volume
from controlplane.store import Store, open_store


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    opened = open_store(redis_url)
    yield opened
    opened.close()


def claim(phase: str = "Bound", storage: str = "100Gi", **metadata: object) -> Object:
    about = {
        "uid": "c-1",
        "name": "dev-volume",
        "namespace": "fp-t",
        "labels": {"flashplane.io/owner": "dev"},
        "annotations": {"flashplane.io/storage-class": "fast"},
    }
    return {
        "metadata": about | metadata,
        "spec": {"resources": {"requests": {"storage": storage}}},
        "status": {"phase": phase},
    }


class Told:
    """A publisher over claims that a test changes, on a clock of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.claims: list[Object] = []
        self.until = 1000.0
        self.publisher = self.successor()

    def successor(self) -> VolumePublisher:
        return VolumePublisher(
            self.store,
            claims=lambda: self.claims,
            tenant_of=lambda namespace: "acme",
            watched_at=lambda: self.until,
        )

    def at(self, until: float, *claims: Object) -> list[Volume]:
        self.until, self.claims = until, list(claims)
        for _ in range(REPEATED_EVERY):
            assert self.publisher.publish()
        return volumes.TABLE.read(self.store, until, stale_seconds=float("inf"))


@pytest.fixture
def told(store: Store) -> Told:
    return Told(store)


def test_a_bound_claim_is_proven_from_when_it_was_first_seen(told: Told) -> None:
    told.at(1000, claim())
    (found,) = told.at(1060, claim())
    assert found == Volume(
        "c-1", "dev-volume", "fp-t/dev", "acme", "fast", 100, alive_since=1000, published_at=1060
    )


@pytest.mark.parametrize(
    "unproven",
    [
        claim(phase="Pending"),
        claim(storage="100Mi"),
        claim(labels={}),
        claim(deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
    ids=["not bound", "of no size", "of nobody", "on its way out"],
)
def test_nothing_else_is_proven(unproven: Object) -> None:
    assert seen(unproven, "acme", earlier=None, until=1.0) is None
    assert seen(claim(), "", earlier=None, until=1.0) is None


def test_a_claim_that_is_gone_has_ended_when_it_was_seen_last(told: Told) -> None:
    told.at(1000, claim())
    told.at(1100, claim())
    (found,) = told.at(1200)
    assert (found.published_at, found.ended) == (1100, True)


def test_another_operator_goes_on_with_what_was_told(told: Told) -> None:
    told.at(1000, claim())
    told.publisher = told.successor()
    (found,) = told.at(1100, claim())
    assert (found.alive_since, found.published_at) == (1000, 1100)


def test_a_watch_that_fell_silent_proves_nothing_new(told: Told) -> None:
    told.at(1000, claim())
    (found,) = told.at(990, claim())
    assert found.published_at == 1000
