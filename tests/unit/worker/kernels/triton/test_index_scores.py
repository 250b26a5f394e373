"""Scores of index keys against float64: off by 2^-18 of sum_h |w_h| sum_d |q_hd k_d| at most, with
packed keys (whose products are exact) as with plain ones."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, index_packing
from worker.kernels.triton.index_scores import TILE, score_keys, unsupported
from worker.model.tiny import TINY

lenient = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BOUND = 2.0**-18
PAGES = 9


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * torch.exp2(torch.randn(shape, generator=g))


def pool_of(kind: str, per_page: int, dim: int, seed: int = 0) -> EntryPool:
    """Keys in all pages: "packed", or plain numbers of a dtype."""
    keys = noise(PAGES * per_page, dim, seed=seed)
    if kind != "packed":
        return EntryPool(keys.view(PAGES, per_page, dim).to(getattr(torch, kind)))
    pool = EntryPool.zeros(PAGES, index_packing(per_page, dim), torch.float32, "cpu")
    reference.store_entries(pool, torch.arange(pool.rows), keys)
    return pool


def moved(pool: EntryPool, device: str) -> EntryPool:
    return EntryPool(pool.data.to(device), pool.packing)


def exact(
    query: torch.Tensor, weights: torch.Tensor, pool: EntryPool, table: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 scores [B, R, N] of all keys of all pages in `table`, and their bounds."""
    keys = reference.load_blocks(pool, table.flatten(), torch.float32).double()
    keys = keys.view(len(table), -1, keys.shape[-1])
    q, w = query.double(), weights.double()
    by_head = torch.einsum("brhd,bnd->brhn", q, keys).relu()
    sizes = torch.einsum("brhd,bnd->brhn", q.abs(), keys.abs())
    return torch.einsum("brh,brhn->brn", w, by_head), BOUND * torch.einsum(
        "brh,brhn->brn", w.abs(), sizes
    )


@lenient
@given(
    sequences=st.integers(1, 3),
    rows=st.integers(1, 6),
    heads=st.sampled_from([1, 4, 12, 32, 64]),
    dim=st.sampled_from([16, 32, 128]),
    kind=st.sampled_from(["packed", "packed", "bfloat16", "float32"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    per_page=st.sampled_from([4, 64, 96]),
    missing=st.integers(0, 70),
    seed=st.integers(0, 99),
)
def test_any_shape_is_scored(
    device: str,
    sequences: int,
    rows: int,
    heads: int,
    dim: int,
    kind: str,
    dtype: torch.dtype,
    per_page: int,
    missing: int,
    seed: int,
) -> None:
    pool = pool_of(kind, per_page, dim, seed)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(PAGES, (sequences, 3), generator=generator)
    entries = max(0, 3 * per_page - missing)
    query = noise(sequences, rows, heads, dim, seed=seed + 1).to(dtype)
    weights = noise(sequences, rows, heads, seed=seed + 2)
    query[..., 0, :] *= 2.0**-40  # beyond float16, on its own
    scores = kernels.index_scores(
        query.to(device), weights.to(device), moved(pool, device), table.to(device), entries
    ).cpu()
    expected, bound = exact(query, weights, pool, table)
    assert scores.shape == (sequences, rows, entries)
    assert scores.dtype == torch.float32
    assert ((scores.double() - expected[..., :entries]).abs() <= bound[..., :entries]).all()


def test_nothing_is_written_where_no_row_of_a_program_sees(device: str) -> None:
    pool = pool_of("packed", 64, 32)
    table = torch.tensor([[3, 1, 4, 0], [2, 8, 7, 6]])
    query, weights = noise(2, 3, 8, 32).bfloat16(), noise(2, 3, 8)
    visible = torch.tensor([[0, 1, 130], [0, 0, 0]])
    scores = torch.full((2, 3, 192), torch.nan, device=device)
    score_keys(
        query.to(device),
        weights.to(device),
        moved(pool, device),
        table.to(device),
        visible.to(device),
        TILE,
        scores,
    )
    expected, bound = exact(query, weights, pool, table)
    found = scores.cpu().double()
    seen = slice(TILE, 130)
    assert ((found[0, 2, : 130 - TILE] - expected[0, 2, seen]).abs() <= bound[0, 2, seen]).all()
    assert found[0, :, 130 - TILE :].isnan().all()
    assert found[1].isnan().all()


@pytest.mark.filterwarnings("ignore:(invalid|overflow):RuntimeWarning")  # the interpreter's
def test_what_is_not_finite_reaches_the_scores_it_belongs_to(device: str) -> None:
    pool = pool_of("packed", 64, 32)
    assert pool.packing is not None
    pool.data[5, 7 * 32 + 3] = 0x7F  # entry 7's channel 3
    table = torch.tensor([[2, 5]])
    query, weights = noise(1, 2, 8, 32).bfloat16(), noise(1, 2, 8)
    query[0, 1, 4, 9] = torch.nan
    scores = kernels.index_scores(
        query.to(device), weights.to(device), moved(pool, device), table.to(device), 128
    ).cpu()
    assert scores[0, 0].isnan().nonzero().flatten().tolist() == [64 + 7]
    assert scores[0, 1].isnan().all()


def test_far_positions_take_few_pages(device: str) -> None:
    pool = pool_of("packed", 64, 16)
    pages = 262_144 // 64
    table = torch.zeros(1, pages, dtype=torch.long)
    table[0, -2:] = torch.tensor([4, 7])
    query, weights = noise(1, 1, 4, 16).bfloat16(), noise(1, 1, 4)
    scores = torch.full((1, 1, 128), torch.nan, device=device)
    score_keys(
        query.to(device),
        weights.to(device),
        moved(pool, device),
        table.to(device),
        None,
        262_144 - 128,
        scores,
    )
    expected, bound = exact(query, weights, pool, table[:, -2:])
    assert ((scores.cpu().double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("repeats", [3, pytest.param(1_000, marks=pytest.mark.gpu)])
def test_repeats_give_the_same_bits(device: str, repeats: int) -> None:
    pool = moved(pool_of("packed", 64, 128), device)
    table = torch.tensor([[3, 1, 4], [2, 8, 7]], device=device)
    query = noise(2, 2, 64, 128).bfloat16().to(device)
    weights = noise(2, 2, 64).to(device)
    first = kernels.index_scores(query, weights, pool, table, 190)
    for _ in range(repeats):
        again = kernels.index_scores(query, weights, pool, table, 190)
        assert torch.equal(first, again)


def test_an_indexer_beyond_shared_memory_is_refused() -> None:
    assert unsupported(TINY) is None
    assert unsupported(replace(TINY, index_n_heads=64, index_head_dim=128)) is None
    reason = unsupported(replace(TINY, index_n_heads=512, index_head_dim=128))
    assert reason == "512 index heads of 128 channels do not fit into 128 KiB"
