from dataclasses import replace

from support.deployment_world import World, configuration, spec

from controlplane.operator.deployment.slots import all_slots, free_gpus, free_slots

CATALOGUE = {"x2": configuration("x2", count=2), "x4": configuration("x4", count=4)}


def world(**parts: object) -> World:
    listed = {"configurations": ["x2", "x4"], "replicas": 9, "budgetGPUs": 13}
    return World(spec(**{**listed, **parts}), catalogue=CATALOGUE)


def test_the_largest_configuration_sizes_the_slots() -> None:
    """So that all names taken at once are within the budget, whatever a cache shows."""
    assert all_slots(world().observed()) == 3
    assert all_slots(world(configurations=["x2"]).observed()) == 6


def test_without_a_budget_number_and_surge_make_the_slots() -> None:
    assert all_slots(world(budgetGPUs=None, replicas=2).observed()) == 3
    scaling = {"max": 4}
    surge = {"surge": 2}
    parts = {"replicas": None, "budgetGPUs": None, "scaling": scaling, "rollout": surge}
    assert all_slots(world(**parts).observed()) == 6


def test_a_slot_is_free_when_its_object_is_gone() -> None:
    subject = world(replicas=2)
    subject.tick()
    assert free_slots(subject.observed()) == [2]
    subject.fail("chat-0", "EngineFailed")
    assert free_slots(subject.observed()) == [2]
    assert free_gpus(subject.observed()) == 13 - 2


def test_a_slot_of_something_unreadable_counts_as_the_largest() -> None:
    seen = replace(world().observed(), taken_slots=frozenset({1}))
    assert free_slots(seen) == [0, 2]
    assert free_gpus(seen) == 13 - 4
