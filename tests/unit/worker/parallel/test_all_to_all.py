"""Rows find their experts and come home, with real collectives between threads."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.expert_ranks import Ranks, ranks

from worker.kernels import reference
from worker.parallel.all_to_all import combine, dispatch
from worker.parallel.groups import ALONE, ExpertGroup

EXPERTS, WIDTH, INNER = 12, 32, 32
SIZE = 3


@pytest.fixture(scope="module")
def three() -> Iterator[Ranks]:
    with ranks(SIZE) as together:
        yield together


class Layer:
    """Random experts and, for every rank, random rows with their choices."""

    def __init__(self, tokens: list[int], pool: list[int], k: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.gate_up = torch.randn(EXPERTS, 2 * INNER, WIDTH, generator=generator) / 6
        self.down = torch.randn(EXPERTS, WIDTH, INNER, generator=generator) / 6
        self.x = [torch.randn(t, WIDTH, generator=generator) for t in tokens]
        order = [torch.rand(t, len(pool), generator=generator).argsort(1) for t in tokens]
        self.chosen = [torch.tensor(pool)[o[:, :k]] for o in order]
        self.weights = [torch.rand(c.shape, generator=generator) for c in self.chosen]

    def here(self, rank: int) -> torch.Tensor:
        """The rank's results where all experts are at hand."""
        return self._run(slice(None), self.x[rank], self.chosen[rank], self.weights[rank])

    def apart(self, group: ExpertGroup) -> torch.Tensor:
        """The same with a share of the experts on each rank."""
        own = group.experts(EXPERTS)
        x, rank = self.x[group.rank], group.rank
        arrived = dispatch(group, x, self.chosen[rank], self.weights[rank], own)
        share = slice(own.start, own.stop)
        results = self._run(share, arrived.x, arrived.chosen, arrived.weights)
        return combine(group, arrived, results, tokens=len(x))

    def _run(
        self, experts: slice, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        stacks = self.gate_up[experts], self.down[experts]
        return reference.grouped_experts(x, *stacks, chosen, weights, limit=10.0, quantise=False)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tokens=st.lists(st.integers(0, 9), min_size=SIZE, max_size=SIZE),
    pool=st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=EXPERTS, unique=True),
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_apart_is_as_together(
    three: Ranks, tokens: list[int], pool: list[int], k: int, seed: int
) -> None:
    """Ranks without a token and experts that nobody chooses included."""
    layer = Layer(tokens, pool, min(k, len(pool)), seed)
    for rank, ours in enumerate(three.each(layer.apart)):
        torch.testing.assert_close(ours, layer.here(rank), rtol=1e-5, atol=1e-6)


def test_a_row_visits_each_rank_once(three: Ranks) -> None:
    """However many of its experts are there."""
    x = torch.randn(5, WIDTH)
    chosen = torch.tensor([[0, 1, 2, 3]] * 4 + [[0, 1, 4, 8]])

    def arrivals(group: ExpertGroup) -> list[int]:
        own = group.experts(EXPERTS)
        mine = x if group.rank == 2 else x[:0]
        ids = chosen if group.rank == 2 else chosen[:0]
        arrived = dispatch(group, mine, ids, ids.float(), own)
        combine(group, arrived, torch.zeros(arrived.x.shape), tokens=len(mine))
        return arrived.received

    assert three.each(arrivals) == [[0, 0, 5], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_arrive_bit_for_bit(three: Ranks, dtype: torch.dtype) -> None:
    x = torch.randn(4, WIDTH).to(dtype)
    chosen = torch.tensor([[11, 4], [5, 10], [8, 9], [0, 1]])
    weights = torch.rand(4, 2)

    def arrivals(group: ExpertGroup) -> tuple[torch.Tensor, ...]:
        mine = slice(None) if group.rank == 0 else slice(0)
        own = group.experts(EXPERTS)
        arrived = dispatch(group, x[mine], chosen[mine], weights[mine], own)
        return arrived.x, arrived.chosen, arrived.weights

    expected_rows = [[3], [0, 1], [0, 1, 2]]
    expected_ids = [[[0, 1]], [[4, 0], [1, 4]], [[3, 4], [4, 2], [0, 1]]]
    for rank, (rows, ids, theirs) in enumerate(three.each(arrivals)):
        assert torch.equal(rows, x[expected_rows[rank]])
        assert ids.tolist() == expected_ids[rank]
        assert torch.equal(theirs, weights[expected_rows[rank]])


def test_one_rank_copies_nothing() -> None:
    x, chosen, weights = torch.randn(3, WIDTH), torch.tensor([[0], [5], [5]]), torch.rand(3, 1)
    arrived = dispatch(ALONE, x, chosen, weights, range(EXPERTS))
    assert arrived.x is x
    assert arrived.chosen is chosen
    assert arrived.weights is weights
    results = torch.randn(3, WIDTH)
    assert combine(ALONE, arrived, results, tokens=3) is results
