"""Attention against its definition in float64 over the same stored entries.

Error bounds, relative to the largest magnitude that an entry may have: 2^-17 where products are in
float32; 2^-7 where weights and the result are rounded to bfloat16.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, kv_packing
from worker.kernels.triton.attention import pieces, splits_for

lenient = settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LARGEST = 16
BOUND = {torch.float32: 2.0**-17, torch.bfloat16: 2.0**-7}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pool(entries: int, width: int, rope: int | None, dtype: torch.dtype, seed: int) -> EntryPool:
    """Three blocks of noise; packed if `rope` is given. The last entry is zero."""
    shape = (entries, width) if rope is None else kv_packing(entries, width, rope)
    found = EntryPool.zeros(3, shape, dtype, "cpu")
    rows = torch.arange(found.rows - 1)
    reference.store_entries(found, rows, 2 * noise(len(rows), width, seed=seed).to(dtype))
    return found


def listed(tokens: int, count: int, rows: int, seed: int) -> torch.Tensor:
    """Random rows, a quarter of them absent; all of the first token's."""
    g = torch.Generator().manual_seed(seed)
    found = torch.randint(0, rows, (tokens, count), generator=g)
    found[torch.rand(tokens, count, generator=g) < 0.25] = -1
    found[:1] = -1
    return found


def attended(
    device: str,
    query: torch.Tensor,
    pools: list[EntryPool],
    indices: list[torch.Tensor],
    sink: torch.Tensor,
    scale: float = 0.2,
) -> torch.Tensor:
    moved = [EntryPool(p.data.to(device), p.packing) for p in pools]
    rows = [r.to(device) for r in indices]
    return kernels.sparse_attention(query.to(device), moved, rows, sink.to(device), scale).cpu()


def defined(
    query: torch.Tensor,
    pools: list[EntryPool],
    indices: list[torch.Tensor],
    sink: torch.Tensor,
    scale: float = 0.2,
) -> torch.Tensor:
    """[T, H, D] in float64, of the entries as `load_blocks` reads them."""
    wide = [
        EntryPool(reference.load_blocks(p, torch.arange(len(p.data)), torch.float32).double())
        for p in pools
    ]
    kv = torch.cat([p.data.flatten(0, 1)[i] for p, i in zip(wide, indices, strict=True)], 1)
    absent = torch.cat(indices, 1) < 0
    logits = (query.double() * scale) @ kv.transpose(1, 2)
    logits = logits.masked_fill(absent[:, None], -torch.inf)
    column = sink.double().view(1, -1, 1).expand(len(query), -1, 1)
    return torch.cat((logits, column), -1).softmax(-1)[..., :-1] @ kv


@lenient
@given(
    st.integers(0, 5),
    st.sampled_from([(1, 64, 32), (4, 100, 10), (3, 512, 64), (17, 128, 32)]),
    st.sampled_from(["plain", "packed", "packed entries"]),
    st.tuples(st.integers(1, 70), st.integers(0, 90)),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 1000),
)
def test_any_shape_gives_what_the_definition_does(
    device: str,
    tokens: int,
    geometry: tuple[int, int, int],
    formats: str,
    counts: tuple[int, int],
    dtype: torch.dtype,
    seed: int,
) -> None:
    heads, width, rope = geometry
    window = pool(5, width, rope if formats == "packed" else None, dtype, seed)
    entries = pool(7, width, None if formats == "plain" else rope, dtype, seed + 1)
    indices = [
        listed(tokens, n, p.rows, seed) for n, p in zip(counts, (window, entries), strict=True)
    ]
    query, sink = noise(tokens, heads, width, seed=seed).to(dtype), noise(heads, seed=seed)
    found = attended(device, query, [window, entries], indices, sink)
    expected = defined(query, [window, entries], indices, sink)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=LARGEST * BOUND[dtype])


def test_a_token_that_sees_nothing_gets_zeros(device: str) -> None:
    entries = pool(4, 64, None, torch.float32, 0)
    nothing = torch.full((2, 300), -1)
    found = attended(device, noise(2, 3, 64), [entries], [nothing], torch.zeros(3))
    assert torch.equal(found, torch.zeros(2, 3, 64))


@pytest.mark.parametrize("rope", [None, 32])
def test_rows_that_are_not_listed_are_not_read(device: str, rope: int | None) -> None:
    clean = pool(4, 96, rope, torch.float32, 0)
    stale = EntryPool(clean.data.clone(), clean.packing)
    for block in (0, 2):
        stale.data[block] = 0xFF if rope else torch.nan
    rows = torch.tensor([[-1, 5, -1, 6, 4], [7, -1, -1, 7, -1]])
    query, sink = noise(2, 4, 96), noise(4)
    found = attended(device, query, [stale], [rows], sink)
    assert torch.equal(found, attended(device, query, [clean], [rows], sink))


def test_entries_seen_by_few_tokens_are_split_and_put_together_alike(device: str) -> None:
    entries = pool(9, 64, 16, torch.float32, 0)
    rows = listed(1, 2_100, entries.rows, 0)
    rows[0, 3], rows[0, 1_400:1_407] = 5, torch.arange(7)  # whole splits see nothing
    query, sink = noise(1, 2, 64), torch.tensor([-40.0, 3.0])
    found = attended(device, query, [entries], [rows], sink)
    expected = defined(query, [entries], [rows], sink)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=LARGEST * 2.0**-17)


@pytest.mark.parametrize("sink", [-torch.inf, -1e4, 1e4])
def test_a_sink_may_take_nothing_or_everything(device: str, sink: float) -> None:
    entries = pool(9, 64, None, torch.float32, 0)
    query, sinks = noise(1, 2, 64), torch.full((2,), sink)
    for count in (12, 1_000):  # in one share, and in several
        rows = torch.arange(count)[None] % 26
        found = attended(device, query, [entries], [rows], sinks)
        expected = defined(query, [entries], [rows], sinks)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=LARGEST * 2.0**-17)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of NaN
def test_what_is_not_finite_stays_in_its_head(device: str) -> None:
    entries = pool(4, 64, None, torch.float32, 0)
    query = noise(2, 3, 64)
    query[1, 2, 7] = torch.nan
    rows = torch.tensor([[1, 2, -1], [3, -1, 4]])
    found = attended(device, query, [entries], [rows], torch.zeros(3))
    assert found.isnan().any(-1).tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    "repeats", [2, pytest.param(1_000, marks=[pytest.mark.gpu, pytest.mark.storm])]
)
def test_repeats_are_the_same_bit_for_bit(device: str, repeats: int) -> None:
    entries = pool(8, 128, 32, torch.bfloat16, 0)
    query, sink = noise(2, 4, 128).bfloat16(), noise(4)
    rows = torch.stack([listed(2, 700, entries.rows, 0)[1]] * 2)
    first = attended(device, query, [entries], [rows], sink)
    for _ in range(repeats - 1):
        assert torch.equal(attended(device, query, [entries], [rows], sink), first)


def test_channels_are_cut_at_formats_and_into_a_power_of_two_of_pieces() -> None:
    assert pieces((128, 64)) == ((0, 64), (64, 128), (128, 192), (192, 192))
    assert pieces((90, 10)) == ((0, 64), (64, 90), (90, 100), (100, 100))
    assert len(pieces((448, 64))) == 8


def test_shares_fill_the_processors_and_no_wave_is_nearly_empty() -> None:
    assert splits_for(128, 10, 132) == 1
    assert splits_for(64, 18, 132) == 2
    assert splits_for(16, 130, 132) == 8
    assert splits_for(1, 10, 132) == 10
    assert splits_for(4_096, 10, 132) == 1
    assert splits_for(1, 0, 132) == 1
    assert splits_for(70, 130, 132) == 5
