"""Packed bytes against the reference's, bit for bit; what was not written is as it was."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, Packing, index_packing, kv_packing

lenient = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
packings = st.one_of(
    st.builds(
        lambda entries, plain, rope: kv_packing(entries, 2 * (plain + rope), 2 * rope),
        st.integers(1, 5),
        st.integers(1, 260),
        st.integers(1, 32),
    ),
    st.builds(index_packing, st.integers(1, 5), st.sampled_from([16, 32, 128])),
    st.just(kv_packing(3, 512, 64)),
    st.just(index_packing(3, 128)),
)
BLOCKS = 3
POISON = 0xFF  # NaN in e4m3, in bfloat16 and as a scale


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * torch.exp2(torch.randn(shape, generator=g) * 4)


def width(packing: Packing) -> int:
    return packing.fp8_channels + packing.bf16_channels


def poisoned(packing: Packing, device: str) -> EntryPool:
    data = torch.full((BLOCKS, packing.block_bytes), POISON, dtype=torch.uint8, device=device)
    return EntryPool(data, packing)


def on_cpu(pool: EntryPool) -> EntryPool:
    return EntryPool(pool.data.cpu(), pool.packing)


@lenient
@given(
    packings,
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 9),
    st.integers(0, 999),
)
def test_any_geometry_is_packed_byte_for_byte(
    device: str, packing: Packing, dtype: torch.dtype, count: int, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randperm(BLOCKS * packing.entries, generator=g)[:count]
    entries = noise(len(rows), width(packing), seed=seed).to(dtype)
    found, expected = poisoned(packing, device), poisoned(packing, "cpu")
    kernels.store_entries(found, rows.to(device), entries.to(device))
    reference.store_entries(expected, rows, entries)
    assert torch.equal(found.data.cpu(), expected.data)


@pytest.mark.filterwarnings("ignore:(overflow|invalid):RuntimeWarning")  # of arbitrary bytes
@lenient
@given(
    packings,
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.lists(st.integers(0, 2), max_size=4),
)
def test_whole_blocks_are_read_alike(
    device: str, packing: Packing, dtype: torch.dtype, blocks: list[int]
) -> None:
    pool = EntryPool.zeros(BLOCKS, packing, dtype, "cpu")
    rows = torch.arange(pool.rows)
    reference.store_entries(pool, rows, noise(pool.rows, width(packing)))
    pool.data[1] = torch.randint(0, 256, pool.data[1].shape, dtype=torch.uint8)
    chosen = torch.tensor(blocks, dtype=torch.long)
    moved = EntryPool(pool.data.to(device), packing)
    found = kernels.load_blocks(moved, chosen.to(device), dtype).cpu()
    expected = reference.load_blocks(pool, chosen, dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pool_of_plain_numbers_is_written_and_read(device: str, dtype: torch.dtype) -> None:
    pool = EntryPool(torch.full((BLOCKS, 4, 100), torch.nan, dtype=dtype, device=device))
    rows = torch.tensor([7, 0, 11], device=device)
    entries = noise(3, 100).to(device)
    kernels.store_entries(pool, rows, entries)
    assert torch.equal(pool.data.flatten(0, 1)[rows], entries.to(dtype))
    assert int(pool.data.isnan().any(-1).sum()) == 9
    whole = kernels.load_blocks(pool, torch.tensor([2], device=device), dtype)
    assert torch.equal(whole[0, 3], entries[2].to(dtype))


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_read_back_as_nan_in_its_group_alone(device: str, bad: float) -> None:
    pool = EntryPool.zeros(2, kv_packing(4, 200, 32), torch.float32, device)
    entries = noise(3, 200)
    entries[1, 70] = bad
    kernels.store_entries(pool, torch.arange(3, device=device), entries.to(device))
    stored = kernels.load_blocks(pool, torch.tensor([0], device=device), torch.float32)[0].cpu()
    assert stored[1, 64:128].isnan().all()
    assert stored.isfinite().all(1).tolist() == [True, False, True, True]
    reference_read = reference.load_blocks(on_cpu(pool), torch.tensor([0]), torch.float32)[0]
    torch.testing.assert_close(stored, reference_read, rtol=0, atol=0, equal_nan=True)
