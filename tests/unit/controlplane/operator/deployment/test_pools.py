import time

from support.deployment_world import KEY, World, dedicated, spec

from controlplane.crd.base import Suspension
from controlplane.operator.deployment.pools import PoolPublisher, pool_record
from controlplane.registry.pools import TABLE, Pool
from controlplane.store import open_store


def told(world: World, *, start_seconds: float = 20.0) -> Pool:
    return pool_record(
        world.deployment,
        world.replicas,
        world.now,
        suspended=bool(world.suspended),
        start_seconds=start_seconds,
        max_model_len=4096,
    )


def test_a_waiting_client_is_told_the_phase_and_what_is_left_of_the_start() -> None:
    world = World(spec())
    world.tick()
    assert told(world).phase == "Pending"
    assert told(world).eta_seconds == 20.0
    world.run(11)
    assert told(world).phase == "Loading"
    assert told(world).eta_seconds == 9.0
    world.run(15)
    serving = told(world)
    assert (serving.phase, serving.serving, serving.eta_seconds) == ("Serving", 1, 0.0)


def test_a_start_that_is_late_is_about_to_serve() -> None:
    world = World(spec(), start_seconds=500)
    world.run(60)
    assert told(world).eta_seconds == 1.0


def test_a_dedicated_deployment_is_its_tenants_alone_under_its_own_name() -> None:
    world = World(dedicated())
    world.tick()
    assert (told(world).model, told(world).tenant_id) == ("flash@chat", "acme")


def test_demand_starts_nothing_that_is_stopped_on_purpose() -> None:
    world = World(spec())
    world.tick()
    assert told(world).startable
    world.change(stopped=True)
    world.run(3)
    assert not told(world).startable
    assert told(world).eta_seconds is None
    world = World(spec(windows=[{"days": ["mon"], "start": "09:00", "end": "09:01"}]))
    world.tick()
    assert not told(world).startable
    assert told(world).phase == "Stopped"


def test_demand_starts_nothing_where_nothing_may_run() -> None:
    world = World(spec())
    world.suspended = Suspension.FUNDS
    world.tick()
    assert not told(world).startable
    assert told(world).eta_seconds is None
    world.suspended = ""
    world.tick()
    assert told(world).startable


def test_pools_are_told_and_taken_back(redis_url: str) -> None:
    store = open_store(redis_url)
    records = {KEY: Pool(KEY, "flash", "serverless", time.time())}
    publisher = PoolPublisher(store, lambda: records)
    assert publisher.publish()
    assert [it.name for it in TABLE.read(store, time.time())] == [KEY]
    records.clear()
    assert publisher.publish()
    assert TABLE.read(store, time.time()) == []
    store.close()


def test_a_store_that_is_down_ends_nothing() -> None:
    store = open_store("redis://127.0.0.1:1/0")
    assert not PoolPublisher(store, lambda: {"a": Pool("a", "m", "serverless", 0.0)}).publish()
    store.close()
