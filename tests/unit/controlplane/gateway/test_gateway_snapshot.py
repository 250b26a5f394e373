"""Whose model is whose, and how long the registry's words hold."""

from controlplane.gateway.snapshot import SILENCE_SECONDS, Route, Snapshot, believed
from controlplane.registry.heartbeats import STALE_SECONDS
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica

NAME = "m@prod"


def pool(name: str, tenant_id: str = "", published_at: float = 0.0, **fields: object) -> Pool:
    path = "dedicated" if tenant_id else "serverless"
    model = NAME if tenant_id else "m"
    return Pool(name, model, path, published_at, tenant_id, **fields)  # type: ignore[arg-type]


def replica(name: str, deployment: str, published_at: float, path: str = "serverless") -> Replica:
    return Replica(name, "http://x", "m", path, 1, published_at, deployment=deployment)


def test_a_deployment_is_its_tenants_alone() -> None:
    snapshot = Snapshot(pools=[pool("a/prod", "alice"), pool("b/prod", "bob"), pool("s/m")])
    assert snapshot.resolve(NAME, "alice") == Route(NAME, "dedicated", "alice")
    assert snapshot.resolve(NAME, "bob") == Route(NAME, "dedicated", "bob")
    assert snapshot.resolve(NAME, "eve") == Route(NAME, "serverless")
    assert snapshot.resolve("m", "alice") == Route("m", "serverless")
    assert snapshot.dedicated == {"alice": (NAME,), "bob": (NAME,)}


def test_a_dedicated_replica_that_names_no_tenant_is_nobodys() -> None:
    snapshot = Snapshot([replica("r", "a/m", 0.0, path="dedicated")])
    assert snapshot.resolve("m", "alice") == Route("m", "serverless")


def test_demand_counts_for_the_deployment_that_is_starting_already() -> None:
    pools = [pool("s/a"), pool("s/b", desired=1), pool("s/c", startable=False, desired=3)]
    served = Snapshot(pools=pools).routes[Route("m", "serverless")]
    assert served.pool is not None
    assert served.pool.name == "s/b"


def test_what_an_operator_that_speaks_has_stopped_saying_is_over() -> None:
    now = 1000.0
    old, new = replica("old", "s/a", now - STALE_SECONDS - 1), replica("new", "s/a", now)
    assert believed([old, new], [], now) == ([new], [])
    assert believed([old], [pool("s/a", published_at=now)], now)[0] == []


def test_a_silent_operators_last_word_holds_for_a_while() -> None:
    now = 1000.0
    said_at = now - SILENCE_SECONDS + 1
    told, offered = replica("r", "s/a", said_at), pool("s/a", published_at=said_at)
    assert believed([told], [offered], now) == ([told], [offered])
    assert believed([told], [offered], now + 2) == ([], [])


def test_the_built_in_worker_speaks_for_itself() -> None:
    now = 1000.0
    silent = replica("r1", "", now - STALE_SECONDS - 1)
    assert believed([silent], [], now) == ([], [])
    operators = replica("r2", "s/a", now - 2 * STALE_SECONDS)
    alive = replica("r1", "", now)
    assert believed([alive, operators], [], now) == ([alive, operators], [])
