"""A replica's object goes when nothing depends on it any more."""

from support.replica_world import World

from controlplane.crd.replica import Phase
from controlplane.operator.replica import moves
from controlplane.operator.replica.plan import TOLD_LOOK_SECONDS


def test_a_released_replica_takes_itself_away() -> None:
    world = World().serve()
    world.ask(drain="scaled down")
    world.rounds(1)
    world.gateway_reports(draining={"u-1": 0})
    world.rounds(1)
    assert world.status.drained_by == "acknowledged"
    world.pods_end()
    world.rounds(1)
    assert world.body is None


def test_one_that_served_stays_until_its_end_was_told() -> None:
    world = World(end_told=False).serve()
    world.ask(drain="scaled down")
    world.rounds(1)
    world.gateway_reports(draining={"u-1": 0})
    world.rounds(1)
    world.pods_end()
    world.rounds(1)
    assert world.phase is Phase.RELEASED
    assert world.round().again_in_seconds == TOLD_LOOK_SECONDS
    world.end_told = True
    world.rounds(1)
    assert world.body is None


def test_a_failed_replica_stays_until_it_is_let_go() -> None:
    world = World()
    world.rounds()
    world.rounds(moves.PENDING_SECONDS + 1)
    world.rounds(1e5)
    assert world.phase is Phase.FAILED
    world.ask(drain="gone with its deployment")
    world.rounds()
    assert world.body is None
