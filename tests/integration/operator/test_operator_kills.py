"""An operator that is killed after any single write and starts anew comes to the same end."""

from collections.abc import Callable

import pytest
from support.operator_world import RELEASE, TENANT, World

from controlplane.cluster import Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS
from controlplane.crd.replica import Phase

Stage = Callable[[World], None]


def born(world: World) -> None:
    """Three ways to sell GPUs begin, two of them with somebody waiting."""
    world.laws.holding = True
    world.make_dedicated(replicas=2, budgetGPUs=3)
    world.make_pool(budgetGPUs=2)
    world.make_endpoint(volume={"sizeGiB": 1}, ports=[{"name": "web", "port": 8080}])
    world.settle(until=lambda: serving(world) == 4)
    world.laws.holding = False


def changed(world: World) -> None:
    """Another revision takes over, the pool goes to zero, the endpoint is stopped."""
    old = {it.spec.revision for it in world.replicas() if it.spec.owner == "chat"}
    engine = {"maxModelLen": 2048}
    world.change(DEPLOYMENTS, TENANT, "chat", engine=engine)
    world.change(ENDPOINTS, TENANT, "dev", state="Stopped")

    def has_changed() -> bool:
        chat = [it for it in world.replicas() if it.spec.owner == "chat"]
        new = all(it.spec.revision not in old for it in chat)
        return new and serving(world) == len(world.replicas()) == 2

    world.settle(until=has_changed)


def ended(world: World) -> None:
    """All is deleted."""
    for namespace, name in ((TENANT, "chat"), (RELEASE, "pool")):
        world.delete(DEPLOYMENTS, name, namespace)
    world.delete(ENDPOINTS, "dev", TENANT)
    world.settle(until=lambda: not world.picture())


def serving(world: World) -> int:
    return sum(1 for it in world.replicas() if it.status.phase is Phase.SERVING)


STAGES: tuple[Stage, ...] = (born, changed, ended)


def lived(kill_after: int | None = None) -> tuple[World, list[Object]]:
    """Return the world after all stages, and what there was after each."""
    world = World()
    world.kill_after = kill_after
    seen = []
    for stage in STAGES:
        stage(world)
        world.rest()
        seen.append(world.picture())
    return world, seen


@pytest.mark.parametrize(
    "stride",
    [
        pytest.param(11, id="some"),
        pytest.param(1, id="every", marks=[pytest.mark.storm, pytest.mark.timeout(3600)]),
    ],
)
def test_an_operator_killed_after_a_write_comes_to_the_same_end(stride: int) -> None:
    world, expected = lived()
    writes = len(world.writes)
    assert writes > 100
    for number in range(1, writes + 1, stride):
        killed, seen = lived(kill_after=number)
        assert killed.deaths == 1
        assert seen == expected, f"killed after write {number}: {world.writes[number - 1]}"
