"""The best keys, segment by segment, against all scores at once. Numbers are small and whole, so
that scores are exact, and many of them equal."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, index_packing
from worker.kernels.triton.index_top import keep_best_of_segments, row_blocks

lenient = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PAGES, PER_PAGE, HEADS, DIM = 7, 64, 4, 16


def whole(*shape: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, shape, generator=g).float()


def operands(
    device: str, sequences: int, rows: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, EntryPool, torch.Tensor]:
    pool = EntryPool.zeros(PAGES, index_packing(PER_PAGE, DIM), torch.float32, "cpu")
    reference.store_entries(pool, torch.arange(pool.rows), whole(pool.rows, DIM, seed=seed))
    table = torch.randint(PAGES, (sequences, 5), generator=torch.Generator().manual_seed(seed))
    return (
        whole(sequences, rows, HEADS, DIM, seed=seed + 1).bfloat16().to(device),
        whole(sequences, rows, HEADS, seed=seed + 2).to(device),
        EntryPool(pool.data.to(device), pool.packing),
        table.to(device),
    )


@lenient
@given(
    sequences=st.integers(1, 2),
    rows=st.integers(1, 3),
    entries=st.integers(1, 200),
    k=st.integers(1, 40),
    segment=st.sampled_from([64, 128, 192, 1024]),
    seed=st.integers(0, 999),
)
def test_segments_find_what_all_scores_at_once_do(
    device: str, sequences: int, rows: int, entries: int, k: int, segment: int, seed: int
) -> None:
    query, weights, keys, table = operands(device, sequences, rows, seed)
    generator = torch.Generator().manual_seed(seed)
    visible = torch.randint(entries + 1, (sequences * rows,), generator=generator).to(device)
    k = min(k, entries)
    best = torch.full((sequences * rows, k), -7, dtype=torch.int64, device=device)
    seen = visible.view(sequences, rows)
    keep_best_of_segments(query, weights, keys, table, seen, entries, segment, best)
    on_cpu = (query.cpu(), weights.cpu(), EntryPool(keys.data.cpu(), keys.packing), table.cpu())
    expected = reference.index_top(*on_cpu, visible.cpu(), entries, k)
    assert best.tolist() == expected.tolist()


@pytest.mark.parametrize(("entries", "k"), [(300, 400), (300, 20), (0, 5), (5, 0)])
def test_it_is_the_best_of_the_scores(device: str, entries: int, k: int) -> None:
    query, weights, keys, table = operands(device, 2, 3, seed=5)
    visible = torch.tensor([0, 1, entries, entries, 17, entries // 2], device=device)
    found = kernels.index_top(query, weights, keys, table, visible, entries, k)
    scores = kernels.index_scores(query, weights, keys, table, entries).flatten(0, 1)
    assert found.shape == (6, min(k, entries))
    assert found.tolist() == kernels.select_top(scores, visible, k).tolist()


def test_equal_scores_of_several_segments_go_to_the_lowest_index(device: str) -> None:
    query, weights, keys, table = operands(device, 1, 1, seed=6)
    best = torch.full((1, 70), -7, dtype=torch.int64, device=device)
    seen = torch.tensor([[300]], device=device)
    keep_best_of_segments(query * 0, weights, keys, table, seen, 300, 64, best)
    assert best.tolist() == [list(range(70))]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
def test_blocks_hold_every_row_once_and_no_more_than_they_may(
    sequences: int, rows: int, most: int
) -> None:
    grid = torch.arange(sequences * rows).view(sequences, rows)
    blocks = [grid[block] for block in row_blocks(sequences, rows, most)]
    assert all(block.numel() <= most and block.is_contiguous() for block in blocks)
    assert torch.cat([block.flatten() for block in blocks]).tolist() == list(range(grid.numel()))
