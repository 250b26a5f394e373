"""What the operator's benchmark says of its figures; the rest of it needs a cluster."""

from benchmarks.operator.results import Figure, as_markdown, quantile
from benchmarks.operator.world import World


def test_a_figure_above_its_aim_stands_out() -> None:
    table = as_markdown([Figure("slow", 2.0, "s", 1.0), Figure("quick", 0.5, "s", 1.0)])
    assert "| slow | 2 s | <= 1 s | **no** |" in table
    assert "| quick | 0.5 s | <= 1 s | yes |" in table


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100)]
    assert [quantile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 99.0]


def test_every_endpoint_has_a_tenant() -> None:
    world = World(250)
    assert {namespace for namespace, _ in world.every_key()} == set(world.tenants())
    assert len(set(world.every_key())) == 250
