"""What gateways and jobs are told."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.replica_world import ScriptedWorkload, World, replica_spec

from controlplane.cluster import Object
from controlplane.crd.base import seconds, timestamp
from controlplane.crd.replica import Phase, Replica, ReplicaStatus
from controlplane.operator.replica.publisher import Publisher, last_proof
from controlplane.registry import leases, replicas
from controlplane.registry.leases import Lease
from controlplane.store import Store, open_store


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    opened = open_store(redis_url)
    yield opened
    opened.close()


def serving_world(**spec: Any) -> World:
    """A world whose replica has served for an hour of the real clock."""
    bare = spec.get("path") == "bare"
    world = World(
        spec=replica_spec(**spec),
        workload=ScriptedWorkload(probed=not bare, needs_scrub=bare),
        now=time.time() - 3600,
    )
    world.serve()
    world.now = time.time()
    world.engine_says()
    return world


def publisher(store: Store, world: World) -> Publisher:
    def known() -> list[Replica]:
        return [] if world.body is None else [world.replica]

    def pods(replica: Replica) -> list[Object]:
        return [*world.pods.values()]

    return Publisher(
        store,
        replicas=known,
        pods=pods,
        engine=lambda uid: world.engine,
        watched_at=lambda: world.now,
    )


def told(store: Store) -> list[replicas.Replica]:
    return replicas.read(store, time.time())


def lease(store: Store) -> Lease:
    (found,) = leases.TABLE.read(store, time.time(), stale_seconds=float("inf"))
    return found


def test_a_serving_replica_can_be_asked(store: Store) -> None:
    world = serving_world()
    world.ask(weight=25)
    assert publisher(store, world).publish()
    (found,) = told(store)
    assert (found.id, found.url, found.model) == ("u-1", "http://10.0.0.1:8000", "flash@shop")
    assert (found.deployment, found.tenant_id, found.weight) == ("tenant-a/shop", "acme", 25)
    assert not found.draining


def test_a_draining_replica_is_told_as_such_and_then_withdrawn(store: Store) -> None:
    world = serving_world()
    tell = publisher(store, world)
    world.ask(drain="rolled out")
    world.rounds()
    tell.publish()
    assert told(store)[0].draining
    world.gateway_reports(draining={"u-1": 0})
    world.rounds()
    tell.publish()
    assert world.phase is Phase.STOPPING
    assert told(store) == []


def test_only_what_is_new_is_told_between_two_repetitions(store: Store) -> None:
    world = serving_world()
    held = world.replica
    tell = Publisher(
        store,
        replicas=lambda: [held],
        pods=lambda replica: [*world.pods.values()],
        engine=lambda uid: world.engine,
        watched_at=lambda: world.now,
    )
    tell.publish()
    store.flushall()
    tell.publish(everything=False)
    assert told(store) == []
    held = held.model_copy(update={"spec": held.spec.model_copy(update={"weight": 7})})
    tell.publish(everything=False)
    assert [it.weight for it in told(store)] == [7]
    tell.publish()
    assert lease(store).uid == held.uid


def test_an_end_is_told_between_two_repetitions(store: Store) -> None:
    world = serving_world()
    tell = publisher(store, world)
    tell.publish()
    world.body = None
    tell.publish(everything=False)
    assert told(store) == []
    assert lease(store).ended


def test_a_lease_reaches_back_over_an_outage(store: Store) -> None:
    world = serving_world()
    publisher(store, world).publish()
    first = lease(store)
    store.flushall()
    world.now += 500
    world.engine_says()
    publisher(store, world).publish()
    later = lease(store)
    assert later.alive_since == first.alive_since
    assert later.published_at - first.published_at == pytest.approx(500)


def test_a_life_after_a_crash_begins_anew(store: Store) -> None:
    world = serving_world()
    tell = publisher(store, world)
    tell.publish()
    first = lease(store)
    world.now += 100
    world.pods_are(Phase.PROBING)
    world.rounds()
    tell.publish()
    assert lease(store) == first
    world.now += 100
    world.engine_says()
    world.rounds()
    world.now += 100
    world.engine_says()
    tell.publish()
    assert lease(store).alive_since > first.published_at + 100
    assert not lease(store).ended


def test_an_end_is_told_once_the_store_hears_it(store: Store) -> None:
    world = serving_world()
    tell = publisher(store, world)
    tell.publish()
    proven = lease(store).published_at
    world.body = None
    healthy, tell._store = tell._store, open_store("unix:///nowhere.sock")
    assert not tell.publish()
    tell._store.close()
    tell._store = healthy
    tell.publish()
    assert lease(store).ended
    assert lease(store).published_at == proven


def test_another_operator_tells_the_end_of_a_life_it_never_saw(store: Store) -> None:
    world = serving_world()
    publisher(store, world).publish()
    world.body = None
    publisher(store, world).publish()
    assert lease(store).ended


def test_leases_long_over_are_taken_away(store: Store) -> None:
    world = serving_world()
    publisher(store, world).publish()
    old = lease(store)
    ended = Lease("u-0", old.replica, old.deployment, "bare", "acme", "c", 1, False, 1, 2, True)
    leases.TABLE.publish(store, "u-0", ended)
    publisher(store, world).publish()
    assert lease(store).uid == "u-1"


def test_a_serverless_replica_has_no_lease(store: Store) -> None:
    publisher(store, serving_world(path="serverless", tenant="")).publish()
    assert leases.TABLE.read(store, time.time()) == []
    assert told(store)[0].tenant_id == ""


def test_a_bare_lease_is_not_routed_to_but_proven(store: Store) -> None:
    publisher(store, serving_world(path="bare", owner_kind="GPUEndpoint")).publish()
    assert told(store) == []
    assert lease(store).path == "bare"


def test_a_bare_life_too_short_to_be_believed_is_told_when_it_is_over(store: Store) -> None:
    world = serving_world(path="bare", owner_kind="GPUEndpoint")
    since = seconds(world.replica.status.serving_since or "")
    world.now = since + 20
    tell = publisher(store, world)
    tell.publish()
    assert leases.TABLE.read(store, world.now, stale_seconds=float("inf")) == []
    world.ask(drain="Stopped")
    world.round()
    tell.publish()
    told_once = lease(store)
    assert told_once.ended
    assert (told_once.alive_since, told_once.published_at) == (since + 1, since + 20)
    leases.TABLE.withdraw(store, told_once.uid)
    tell.publish()
    assert leases.TABLE.read(store, world.now, stale_seconds=float("inf")) == []


def test_an_end_counts_as_told_once_the_store_has_taken_it(store: Store) -> None:
    world = serving_world(path="bare", owner_kind="GPUEndpoint")
    world.now = seconds(world.replica.status.serving_since or "") + 20
    tell = publisher(store, world)
    tell.publish()
    world.ask(drain="Stopped")
    world.round()
    assert not tell.has_told_end("u-1")
    tell.publish(everything=False)
    assert lease(store).ended
    assert tell.has_told_end("u-1")


def test_the_end_of_a_later_bare_life_proves_nothing_of_an_earlier_one() -> None:
    """A container that was started anew unseen has no proof of the time before that was seen."""
    world = serving_world(path="bare", owner_kind="GPUEndpoint")
    since = seconds(world.replica.status.serving_since or "")
    last = Lease("u", "r", "n/e", "bare", "t", "c", 1, False, since + 1, since + 9)
    stopped = {
        "phase": "Stopping",
        "phaseSince": timestamp(since + 102),
        "drainedBy": "acknowledged",
    }

    def ended(*stages: tuple[str, float]) -> float:
        told = [{"phase": phase, "seconds": lasted} for phase, lasted in stages]
        status = ReplicaStatus.model_validate({**stopped, "stages": told})
        replica = world.replica.model_copy(update={"status": status})
        return last_proof(last, replica).published_at

    assert ended(("Serving", 102), ("Draining", 0)) == since + 102
    again = (("Serving", 70), ("Probing", 2), ("Serving", 30), ("Draining", 0))
    assert ended(*again) == since + 9


def test_a_deaf_engine_proves_nothing_more(store: Store) -> None:
    world = serving_world()
    tell = publisher(store, world)
    tell.publish()
    proven = lease(store).published_at
    world.now += 900
    tell.publish()
    assert lease(store).published_at == proven


@pytest.mark.parametrize(
    ("notice", "interrupted"), [(True, True), (False, False)], ids=["taken away", "asked to end"]
)
def test_an_end_tells_whether_the_machine_was_taken_away(
    store: Store, notice: bool, interrupted: bool
) -> None:
    world = serving_world()
    tell = publisher(store, world)
    tell.publish()
    if notice:
        world.notices["n1"] = world.now + 120
    else:
        world.ask(drain="rolled out")
    world.rounds()
    tell.publish()
    assert (lease(store).ended, lease(store).interrupted) == (True, interrupted)
