"""Replicas from their making to their end: real processes, a real store, the real loop."""

import time

import httpx
from support.polling import until

from controlplane.cluster import NAMESPACES, NODES, PODS
from controlplane.crd.base import DEPLOYMENTS, REPLICAS
from controlplane.crd.replica import Phase
from controlplane.registry import gateways, leases, replicas
from controlplane.registry.gateways import GatewayReport

from .conftest import Site


def report(site: Site, **words: dict[str, int]) -> None:
    told = GatewayReport("g1", published_at=time.time(), **words)
    gateways.TABLE.publish(site.store, "g1", told)


def told(site: Site) -> list[replicas.Replica]:
    return replicas.read(site.store, time.time())


def test_a_replica_serves_drains_and_goes(site: Site) -> None:
    site.create("shop-0")
    replica = site.in_phase("shop-0", Phase.SERVING)
    until(lambda: told(site), seconds=5, what="gateways to be told")
    (published,) = told(site)
    assert published.max_model_len == 4096
    assert httpx.get(f"{published.url}/health", trust_env=False).status_code == 200
    report(site, inflight={replica.uid: 1})
    site.ask("shop-0", drain="scaled down")
    until(lambda: told(site)[0].draining, seconds=5, what="gateways to be told of the drain")
    report(site, draining={replica.uid: 1})
    site.in_phase("shop-0", Phase.DRAINING)
    assert len(site.pods()) == 1
    report(site, draining={replica.uid: 0})
    site.gone("shop-0")
    assert site.pods() == []
    until(lambda: not told(site), seconds=5, what="gateways to forget it")


def test_at_rest_nothing_is_written(site: Site) -> None:
    site.create("shop-0")
    site.create("shop-1")
    site.in_phase("shop-0", Phase.SERVING)
    site.in_phase("shop-1", Phase.SERVING)
    until(lambda: len(told(site)) == 2, seconds=5, what="both to be told")
    before = len(site.writes)
    published = told(site)[0].published_at
    until(lambda: told(site)[0].published_at > published + 2, seconds=10, what="time to pass")
    assert site.writes[before:] == []


def test_what_does_not_fit_waits_until_gpus_are_free(site: Site) -> None:
    for number in range(3):
        site.create(f"shop-{number}")
    names = ["shop-0", "shop-1", "shop-2"]

    def serving() -> list[str]:
        found = {name: site.replica(name) for name in names}
        return [n for n, it in found.items() if it and it.status.phase is Phase.SERVING]

    until(lambda: len(serving()) == 2, seconds=20, what="two to serve")
    (waiting,) = set(names) - set(serving())
    site.in_phase(waiting, Phase.PENDING)
    site.ask(serving()[0], drain="enough", drainTimeoutSeconds=0)
    site.in_phase(waiting, Phase.SERVING)


def test_a_killed_engine_proves_itself_again_on_the_same_gpus(site: Site) -> None:
    site.create("shop-0")
    first = site.in_phase("shop-0", Phase.SERVING)
    site.cluster.delete(PODS, "shop-0-0", namespace="own", grace_seconds=0)

    def is_back() -> bool:
        replica = site.replica("shop-0")
        assert replica is not None
        status = replica.status
        return status.phase is Phase.SERVING and status.attempts == 2

    until(is_back, seconds=30, what="it to serve again")
    replica = site.replica("shop-0")
    assert replica is not None
    assert replica.status.placements == first.status.placements
    assert replica.status.serving_since == first.status.serving_since


def test_deleting_the_replica_by_hand_drains_it_first(site: Site) -> None:
    site.create("shop-0")
    replica = site.in_phase("shop-0", Phase.SERVING)
    report(site, inflight={replica.uid: 1})
    site.cluster.delete(REPLICAS, "shop-0", namespace="own")
    site.in_phase("shop-0", Phase.DRAINING)
    assert len(site.pods()) == 1
    report(site, draining={replica.uid: 0})
    site.gone("shop-0")


def test_replicas_whose_owner_is_gone_end(site: Site) -> None:
    site.create("shop-0", drain_timeout_seconds=1.0)
    site.in_phase("shop-0", Phase.SERVING)
    site.cluster.delete(DEPLOYMENTS, "shop", namespace="own")
    site.gone("shop-0")


def test_a_namespace_can_be_deleted_whatever_runs_in_it(site: Site) -> None:
    site.create("shop-0", drain_timeout_seconds=1.0)
    site.in_phase("shop-0", Phase.SERVING)
    site.cluster.delete(NAMESPACES, "own")
    site.gone("shop-0")


def test_a_spot_notice_drains_at_once(site: Site) -> None:
    site.create("shop-0")
    site.in_phase("shop-0", Phase.SERVING)
    taint = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}
    site.cluster.patch(NODES, "local", {"spec": {"taints": [taint]}})
    site.in_phase("shop-0", Phase.DRAINING)


def test_its_life_is_proven_and_its_end_told(site: Site) -> None:
    site.create("shop-0", drain_timeout_seconds=0.0)
    site.in_phase("shop-0", Phase.SERVING)

    def proven() -> list[leases.Lease]:
        return leases.TABLE.read(site.store, time.time())

    until(proven, seconds=10, what="a proof")
    assert proven()[0].tenant_id == "acme"
    site.ask("shop-0", drain="enough")
    site.gone("shop-0")
    until(lambda: proven()[0].ended, seconds=5, what="its end to be told")


def test_pods_that_a_replica_left_behind_are_deleted(site: Site) -> None:
    metadata = {
        "name": "lost-0",
        "namespace": "own",
        "labels": {"flashplane.io/replica": "lost"},
    }
    container = {"name": "it", "image": "any", "command": ["sleep", "1000"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    site.cluster.create(PODS, {"metadata": metadata, "spec": spec})
    until(lambda: not site.pods(), seconds=10, what="the pod to go")
