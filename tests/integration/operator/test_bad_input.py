"""What users and clusters get wrong: a condition with a reason says so, and the writing stops.

`World.rest` fails a test whose operator goes on writing. That definitions older than the operator
keep it from starting is in tests/kube/test_operator_process.py.
"""

from typing import Any

import pytest
from support.operator_world import RELEASE, TENANT, World

from controlplane.cluster import NAMESPACES, PODS, Forbidden, Unreachable
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.crd.replica import Phase
from controlplane.local import stored
from controlplane.local.objects import Call

FLASH = {
    "engine": {"name": "vllm", "maxModelLen": 4096},
    "weights": {"pvc": {"claim": "w"}, "sizeBytes": 160_000_000_000},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "experts that cannot be divided": (
        {**FLASH, "configurations": ["h200-x3"]},
        "ImpossibleGeometry",
    ),
    "a context beyond the cache": (
        {
            **FLASH,
            "configurations": ["tight"],
            "engine": {"name": "vllm", "maxModelLen": 1_048_576},
        },
        "DoesNotFit",
    ),
    "a configuration that nobody has": ({"configurations": ["h300"]}, "UnknownConfiguration"),
    "a budget below one replica": (
        {**FLASH, "configurations": ["h200-x4"], "budgetGPUs": 2},
        "QuotaExceeded",
    ),
}


@pytest.fixture
def world() -> World:
    return World()


def said(world: World, type: str, name: str = "chat") -> tuple[str, str]:
    resource = ENDPOINTS if name == "dev" else DEPLOYMENTS
    found = world.condition(resource, TENANT, name, type)
    return found.get("status", ""), found.get("reason", "")


def ends(world: World) -> None:
    """Whatever was wrong, it can be deleted, and nothing is left."""
    world.delete(DEPLOYMENTS, "chat", TENANT)
    world.delete(ENDPOINTS, "dev", TENANT)
    world.settle(until=lambda: not world.picture())


@pytest.mark.parametrize("case", REFUSED)
def test_a_spec_that_cannot_be_made_true_is_refused(world: World, case: str) -> None:
    spec, reason = REFUSED[case]
    world.make_dedicated(**spec)
    world.rest()
    assert said(world, "Accepted") == ("False", reason)
    assert said(world, "Ready")[0] == "False"
    assert not world.replicas()
    ends(world)


def test_a_context_that_the_cache_holds_is_accepted_there(world: World) -> None:
    world.make_dedicated(**FLASH, configurations=["tight"])
    world.rest()
    assert said(world, "Accepted") == ("True", "AsWanted")
    assert said(world, "CapacityReserved") == ("False", "WaitingForCapacity")
    ends(world)


def test_a_quota_that_refuses_pods_is_told(world: World) -> None:
    def refuse(call: Call) -> None:
        if call.verb == "create" and call.resource == PODS:
            raise Forbidden("pods is forbidden: exceeded quota: flashplane")

    world.refuse = refuse
    world.make_dedicated()
    for _ in range(8):
        world.tick(5)
    replica = world.condition(REPLICAS, TENANT, "chat-0", "Ready")
    assert (replica["status"], replica["reason"]) == ("False", "ClusterRefused")
    assert "exceeded quota" in replica["message"]
    assert said(world, "Ready")[0] == "False"
    asked = world.asked
    for _ in range(60):
        world.tick(1)
    assert len(world.writes) < 80
    # A watch of every kind each second, and very few tries.
    assert world.asked - asked < 60 * len(world.operator.parts.reflectors) + 20
    world.refuse = lambda call: None
    world.settle(until=lambda: said(world, "Ready") == ("True", "AsWanted"))
    ends(world)


def test_an_image_that_never_comes_is_told(world: World) -> None:
    world.kubelets.unpullable = {"registry.example/none:1"}
    world.make_endpoint(image="registry.example/none:1")
    world.settle(until=lambda: said(world, "Ready", "dev")[1] == "ImageUnavailable")
    replica = world.condition(REPLICAS, TENANT, "dev-0", "Ready")
    assert replica["reason"] == "ImageUnavailable"
    before = len(world.writes)
    for _ in range(60):
        world.tick(10)
    assert len(world.writes) - before < 60, "it is tried again, but not without a pause"
    world.change(ENDPOINTS, TENANT, "dev", image="registry.example/there:1")
    world.settle(until=lambda: said(world, "Ready", "dev") == ("True", "AsWanted"), ticks=20)
    ends(world)


def test_a_spec_that_no_server_checked_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "admitted", lambda resource, body, before: body)
    world.make_dedicated(replicas=1, scaling={"min": 0, "max": 1})
    world.make_endpoint(configurations=["tiny"], ttlSeconds=-5)
    world.rest()
    assert said(world, "Accepted") == ("False", "InvalidSpec")
    assert said(world, "Accepted", "dev") == ("False", "InvalidSpec")
    assert not world.replicas()
    ends(world)


def test_of_two_operators_one_writes(world: World) -> None:
    world.make_dedicated(replicas=2)
    world.tick()
    former = world.operator
    world.restart()
    world.change(DEPLOYMENTS, TENANT, "chat", replicas=1)
    writes = len(world.writes)
    for _ in range(20):
        former.catch_up()
        former.work()
        world.now += 1
    assert len(world.writes) == writes
    world.settle(until=lambda: said(world, "Ready") == ("True", "AsWanted"))
    ends(world)


def test_a_server_that_is_away_for_minutes_is_asked_ever_more_rarely(world: World) -> None:
    world.make_dedicated()
    world.settle(until=lambda: said(world, "Ready") == ("True", "AsWanted"))

    def refuse(call: Call) -> None:
        if call.verb not in ("list", "watch"):  # those are the reflectors', with their own waits
            tried.append(call)
        raise Unreachable("connection refused")

    tried: list[Call] = []
    world.refuse = refuse
    world.change(DEPLOYMENTS, TENANT, "chat", replicas=3)
    for replica in world.replicas():
        world.operator.parts.replicas.queue.add((replica.namespace, replica.name))
    world.kubelets.crash(0)
    world.operator.parts.deployments.queue.add((TENANT, "chat"))
    for _ in range(300):
        world.tick(1)
    assert len(tried) < 100
    world.refuse = lambda call: None
    world.settle(
        until=lambda: sum(it.status.phase is Phase.SERVING for it in world.replicas()) == 3
    )
    ends(world)


@pytest.mark.parametrize("seconds", [0, 3, 60])
def test_a_namespace_deleted_by_hand_ends_with_all_that_is_in_it(
    world: World, seconds: int
) -> None:
    world.make_dedicated(replicas=2)
    world.make_endpoint()
    for _ in range(6):
        world.tick(seconds)
    world.delete(NAMESPACES, TENANT)
    world.settle(until=lambda: not world.picture())
    world.rest()
    names = [it["metadata"]["name"] for it in world.cluster.list(NAMESPACES).items]
    assert TENANT not in names
    assert RELEASE in names


def test_what_somebody_makes_of_the_catalogue_ends_nothing(world: World) -> None:
    world.make_dedicated()
    world.settle(until=lambda: said(world, "Ready") == ("True", "AsWanted"))
    for text in ("", "configurations: [", "configurations: []"):
        world.break_catalogue(text)
        world.rest()
        assert [it.status.phase for it in world.replicas()] == [Phase.SERVING]
    ends(world)
