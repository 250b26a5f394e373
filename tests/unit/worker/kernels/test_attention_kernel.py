import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference import sparse_attention


def one_query(
    query: torch.Tensor, keys: list[torch.Tensor], sink: float, scale: float
) -> torch.Tensor:
    """A single head's definition in float64: keys are values, the sink has weight and no value."""
    exps = [torch.exp(query.double() @ key.double() * scale) for key in keys]
    total = sum(exps, start=torch.exp(torch.tensor(sink, dtype=torch.float64)))
    weighted = [w * key.double() for w, key in zip(exps, keys, strict=True)]
    return sum(weighted, start=torch.zeros_like(query, dtype=torch.float64)) / total


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(0, 7), st.integers())
def test_matches_the_definition(rows: int, heads: int, window: int, extra: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed % 2**63)
    query = torch.randn(rows, heads, 8, generator=g)
    pools = [torch.randn(n, 8, generator=g) for n in (11, 6)]
    for pool in pools:
        pool[-1] = 0
    indices = [
        torch.randint(-1, len(pool) - 1, (rows, k), generator=g)
        for pool, k in zip(pools, (window, extra), strict=True)
    ]
    sink = torch.randn(heads, generator=g)
    out = sparse_attention(query, [EntryPool(p[None]) for p in pools], indices, sink, 0.3)
    for row in range(rows):
        listed = [p[i] for p, ix in zip(pools, indices, strict=True) for i in ix[row] if i >= 0]
        for head in range(heads):
            expected = one_query(query[row, head], listed, sink[head].item(), 0.3)
            torch.testing.assert_close(out[row, head].double(), expected, atol=1e-5, rtol=1e-5)


def test_rows_that_are_not_listed_cannot_poison_the_sum() -> None:
    pool = torch.full((5, 4), float("nan"))
    pool[2], pool[-1] = 1.0, 0.0
    listed = torch.tensor([[2, -1, -1]])
    out = sparse_attention(
        torch.ones(1, 2, 4), [EntryPool(pool[None])], [listed], torch.zeros(2), 1.0
    )
    assert torch.isfinite(out).all()
