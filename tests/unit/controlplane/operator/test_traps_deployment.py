"""Known failures of other operators that deployments must not repeat, one test each."""

from support.deployment_world import World, configuration, dedicated, finalized, spec

from controlplane.crd.replica import Phase
from controlplane.operator.actions import ApplyStatus, Create, Emit, Patch

ENGINE = {"name": "flash", "maxModelLen": 4096}


def pool(**scaling: object) -> World:
    """A pool that may be at zero, with windows short enough to watch."""
    bounds = {"min": 0, "max": 4, "stabilizationSeconds": 60, "idleSeconds": 60, **scaling}
    world = World(spec(scaling=bounds))
    world.tick()
    return world


def test_an_idle_timer_never_ends_a_replica_that_is_still_loading() -> None:
    """Scale-to-zero counted the load time as idle, so a model that loads longer than the timer was
    ended and started for ever."""
    world = pool()
    world.start_seconds = 300
    world.load(held=1)
    world.tick()
    world.load()  # the client has left
    world.run(250, step=5)
    assert [it.status.phase for it in world.live] == [Phase.LOADING]
    world.run(55, step=5)
    assert len(world.serving) == 1
    world.run(50, step=5)
    assert len(world.serving) == 1, "the idle time begins when it serves"
    world.run(30, step=5)
    assert not world.live


def test_a_held_request_starts_the_first_replica_without_any_metric_of_one() -> None:
    """The scaling metric came from the replica that was not there, so zero was for ever; and a
    metric that was missing was read as zero, which ended what served."""
    world = pool()
    assert not world.replicas
    world.load(held=1)
    world.tick()
    assert len(world.live) == 1
    world.run(30)
    world.gateways = None
    world.run(300, step=5)
    assert len(world.serving) == 1, "a missing signal is not an idle pool"


def test_one_writer_sets_the_number_and_it_stays_while_the_load_does() -> None:
    """An operator and an autoscaler undid one another: 41 scale-ups in 14 minutes."""
    world = pool()
    world.load(held=8)
    world.run(40)
    world.load(inflight=8)
    world.log.clear()
    world.run(14 * 60)
    assert len(world.serving) == 2
    assert not [it for it in world.log if isinstance(it, Create)]
    assert not [it for it in world.log if isinstance(it, Patch)]


def test_a_budget_is_never_exceeded_and_a_stuck_replica_never_freezes_the_rest() -> None:
    """Half of a rebalance failed with pods pending; the planner exceeded the budget, then waited
    for ever for what could not come."""
    catalogue = {"h200-x4": configuration(), "h100-x4": configuration("h100-x4")}
    listed = ["h200-x4", "h100-x4"]
    world = World(spec(replicas=3, configurations=listed, budgetGPUs=12), catalogue=catalogue)
    world.stock = {"h200-x4": 1, "h100-x4": 0}
    world.run(30)
    assert len(world.live) == 3
    assert len(world.serving) == 1
    assert world.condition("CapacityReserved") == ("False", "WaitingForCapacity")
    world.stock = {"h200-x4": 0, "h100-x4": 2}
    for _ in range(150):
        world.tick()
        assert sum(it.spec.configuration.count for it in world.replicas) <= 12
    assert sorted(it.spec.configuration.id for it in world.serving) == [
        "h100-x4",
        "h100-x4",
        "h200-x4",
    ]


def test_a_deleted_deployment_makes_nothing_and_ends_when_its_replicas_have() -> None:
    """The finalizer was gone while children were still being deleted; the next look made them anew,
    and GPUs were held for hours."""
    world = World(spec(replicas=2))
    world.run(30)
    assert len(world.serving) == 2
    assert not finalized(world)
    world.deleting = True
    world.log.clear()
    world.reconcile()
    assert not finalized(world)
    assert all(it.spec.drain for it in world.replicas)
    world.run(10)
    assert not world.replicas
    assert finalized(world)
    assert not [it for it in world.log if isinstance(it, Create)]


def test_a_failed_rollout_leaves_the_healthy_version_alone() -> None:
    """A rollout that failed took the healthy version with it."""
    world = World(dedicated(replicas=2, rollout={"startSeconds": 120}))
    world.run(30)
    healthy = {it.name: it.uid for it in world.serving}
    world.change(engine=ENGINE)
    world.tick()
    (candidate,) = [it for it in world.replicas if it.name not in healthy]
    world.faulty.add(candidate.spec.revision)
    world.run(200)
    assert {it.name: it.uid for it in world.replicas} == healthy
    assert all(it.spec.weight == 100 for it in world.serving)
    assert world.state.refused_revision == candidate.spec.revision
    assert world.condition("Progressing") == ("False", "CanaryAborted")
    assert world.condition("Ready") == ("True", "AsWanted")


def test_a_restarted_operator_goes_on_with_a_rollout_where_it_was() -> None:
    """A controller that was restarted during a rollout updated all groups at once."""
    steps = [{"weight": 10, "seconds": 600}]
    world = World(dedicated(replicas=3, rollout={"canarySteps": steps}))
    world.run(30)
    current = world.serving[0].spec.revision
    world.change(engine=ENGINE)
    world.run(60)
    before = world.state.rollout
    world.restart()
    world.run(60)
    assert world.state.rollout == before
    assert [it.spec.revision for it in world.serving].count(current) == 3
    assert len(world.live) == 4


def test_a_deployment_at_rest_is_written_once_and_then_never() -> None:
    """Timestamps that moved by themselves drove the writes of a controller from 70 a minute to tens
    of thousands."""
    world = pool(min=1)
    world.run(60)
    world.log.clear()
    for held in (0, 0, 0):
        world.load(held=held, inflight=1)
        world.run(100)
    assert not world.log


def test_a_status_never_says_ready_from_what_was_true_of_an_older_spec() -> None:
    """Ready was computed from conditions that still spoke of the previous generation."""
    world = World(spec())
    world.run(30)
    assert world.condition("Ready") == ("True", "AsWanted")
    name = world.serving[0].name
    world.bodies[name]["metadata"]["generation"] += 1  # its controller has not answered yet
    world.reconcile()
    assert world.condition("Ready") == ("Unknown", "Stale")
    assert world.condition("Available") == ("Unknown", "Stale")
    world.change(configurations=["nowhere"])
    world.reconcile()
    assert {it.observed_generation for it in world.state.conditions} == {2}
    assert world.condition("Ready") == ("False", "UnknownConfiguration")


def test_held_requests_do_not_write_the_status_each_time_they_change() -> None:
    world = pool()
    world.load(held=1)
    world.tick()
    world.log.clear()
    for held in range(2, 6):
        world.load(held=held % 4 + 1)
        world.reconcile()
    written = [it for it in world.log if isinstance(it, ApplyStatus)]
    scaled = [it for it in world.log if isinstance(it, Emit)]
    assert len(written) <= len(scaled) + 1
