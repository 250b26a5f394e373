"""Packed pools, byte by byte, against a packer written from the format's description."""

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.kernels.entry_pool import EntryPool, Packing, index_packing, kv_packing
from worker.kernels.reference import load_blocks, quantise_index, sparse_attention, store_entries
from worker.kernels.reference.pool import load_rows

# Every finite e4m3 value by its code, from the format's definition: sign, 4 exponent, 3 mantissa.
E4M3 = {
    code: (-1) ** (code >> 7)
    * (
        (code & 7) / 8 * 2.0**-6
        if (code >> 3) & 15 == 0
        else (1 + (code & 7) / 8) * 2.0 ** (((code >> 3) & 15) - 7)
    )
    for code in range(256)
    if code & 127 != 127
}


def e4m3_code(value: float) -> int:
    """Nearest, ties to the even code; zero keeps its sign."""
    negative = math.copysign(1, value) < 0
    codes = [c for c in E4M3 if (c >> 7) == negative]
    return min(codes, key=lambda c: (abs(E4M3[c] - value), c & 1))


def scale_exponent(values: list[float], floor: float) -> int:
    return math.ceil(math.log2(max([floor, *map(abs, values)]) / 448))


def bf16_bytes(value: float) -> bytes:
    """Round to nearest even on the upper half of a float32."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def pack_kv(entries: list[list[float]], rope: int, size: int) -> bytes:
    """One block of `size` entries, of which the first are given."""
    channels, scales = [], []
    for entry in entries:
        plain = entry[: len(entry) - rope]
        groups = [plain[i : i + 64] for i in range(0, len(plain), 64)]
        exponents = [scale_exponent(group, 1e-4) for group in groups]
        codes = [
            e4m3_code(v / 2.0**e) for group, e in zip(groups, exponents, strict=True) for v in group
        ]
        channels.append(bytes(codes) + b"".join(map(bf16_bytes, entry[len(plain) :])))
        bytes_of_scales = bytes(e + 127 for e in exponents)
        scales.append(bytes_of_scales + bytes(-len(bytes_of_scales) % 8))
    row, scale = len(channels[0]), len(scales[0])
    block = b"".join(channels).ljust(size * row, b"\0") + b"".join(scales).ljust(
        size * scale, b"\0"
    )
    return block + bytes(-len(block) % row)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Magnitudes from 2**-12 to 2**12: groups differ in scale."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * torch.exp2(torch.randn(shape, generator=g) * 4)


def block_bytes(pool: EntryPool, block: int) -> bytes:
    return bytes(pool.data[block].tolist())


def test_flash_has_the_published_sizes() -> None:
    csa, hca = kv_packing(64, 512, 64), kv_packing(2, 512, 64)
    assert (csa.row_bytes, csa.scales_bytes, csa.entry_bytes) == (576, 8, 584)
    assert (csa.block_bytes, hca.block_bytes) == (37_440, 1_728)
    index = index_packing(64, 128)
    assert (index.entry_bytes, index.block_bytes) == (132, 64 * 132)


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 5),
    plain=st.integers(1, 300).map(lambda n: 2 * n),  # up to ten groups: two runs of eight scales
    rope=st.integers(1, 20).map(lambda n: 2 * n),
    seed=st.integers(0, 1000),
)
def test_any_geometry_has_the_described_bytes(size: int, plain: int, rope: int, seed: int) -> None:
    pool = EntryPool.zeros(3, kv_packing(size, plain + rope, rope), torch.float32, "cpu")
    entries = noise(2, plain + rope, seed=seed)
    rows = torch.tensor([0, 3 * size - 1])
    store_entries(pool, rows, entries)
    assert block_bytes(pool, 0) == pack_kv([entries[0].tolist()], rope, size)
    last = [[0.0] * (plain + rope)] * (size - 1) + [entries[1].tolist()]
    packed = pack_kv(last, rope, size)
    stored = block_bytes(pool, 2)
    scale = pool.packing.scales_bytes if pool.packing else 0
    start = size * (plain + 2 * rope) + (size - 1) * scale  # unwritten entries have no scale yet
    assert stored[: (size - 1) * (plain + 2 * rope)] == bytes((size - 1) * (plain + 2 * rope))
    assert (
        stored[(size - 1) * (plain + 2 * rope) : size * (plain + 2 * rope)]
        == (packed[(size - 1) * (plain + 2 * rope) : size * (plain + 2 * rope)])
    )
    assert stored[start:] == packed[start:]


def test_index_keys_have_the_described_bytes() -> None:
    pool = EntryPool.zeros(1, index_packing(3, 128), torch.float32, "cpu")
    keys = noise(3, 128)
    store_entries(pool, torch.arange(3), keys)
    exponents = [scale_exponent(key, 0.0) for key in keys.tolist()]
    codes = [
        e4m3_code(v / 2.0**e) for key, e in zip(keys.tolist(), exponents, strict=True) for v in key
    ]
    scales = struct.pack("<3f", *(2.0**e for e in exponents))
    expected = bytes(codes) + scales
    assert block_bytes(pool, 0) == expected + bytes(-len(expected) % 128)


def packings() -> list[Packing]:
    return [kv_packing(5, 200, 32), kv_packing(2, 48, 16), index_packing(64, 32)]


@pytest.mark.parametrize("packing", packings())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_stored_once_is_stored_without_loss(packing: Packing, dtype: torch.dtype) -> None:
    width = packing.fp8_channels + packing.bf16_channels
    first, second = (EntryPool.zeros(4, packing, dtype, "cpu") for _ in range(2))
    rows = torch.tensor([3, 0, 4 * packing.entries - 2])
    entries = noise(3, width).to(dtype)
    store_entries(first, rows, entries)
    rounded = load_rows(first, rows, dtype)
    torch.testing.assert_close(
        rounded, entries, rtol=2**-4, atol=2**-9 * float(entries.abs().max())
    )
    store_entries(second, rows, rounded)
    assert torch.equal(load_rows(second, rows, dtype), rounded)
    whole = load_blocks(second, torch.arange(4), dtype).flatten(0, 1)
    assert torch.equal(whole[rows], rounded)
    assert int(whole.any(-1).sum()) == 3


@given(st.lists(st.integers(-30, 30), min_size=4, max_size=4), st.integers(0, 100))
def test_keys_rounded_to_e2m1_lose_nothing_up_to_fourteen_binades_apart(
    exponents: list[int], seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    codes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    blocks = codes[torch.randint(0, 8, (4, 32), generator=g)]
    blocks[:, :2] = torch.tensor([0.5, 6.0])  # every block reaches both ends
    key = (blocks * torch.exp2(torch.tensor(exponents).float()).unsqueeze(1)).view(1, 128)
    pool = EntryPool.zeros(1, index_packing(64, 128), torch.float32, "cpu")
    store_entries(pool, torch.tensor([7]), key)
    stored = load_rows(pool, torch.tensor([7]), torch.float32)
    apart = max(exponents) - min(exponents)
    assert torch.equal(stored, key) == (apart <= 14)
    assert (stored - key).abs().max() <= key.abs().max() * 2.0**-18


def test_keys_of_the_official_arithmetic_are_stored_without_loss() -> None:
    keys = quantise_index(torch.randn(64, 128, generator=torch.Generator().manual_seed(1)))
    pool = EntryPool.zeros(1, index_packing(64, 128), torch.float32, "cpu")
    store_entries(pool, torch.arange(64), keys)
    assert torch.equal(load_blocks(pool, torch.tensor([0]), torch.float32)[0], keys)


def test_an_absent_row_reads_zeros_beside_poisoned_ones() -> None:
    pool = EntryPool.zeros(3, kv_packing(4, 48, 16), torch.float32, "cpu")
    pool.data[:-1] = 255  # NaN in e4m3, in bfloat16 and as a scale
    assert load_rows(pool, torch.tensor([0, 7]), torch.float32).isnan().all()
    store_entries(pool, torch.tensor([5]), torch.ones(1, 48))
    query = torch.ones(1, 2, 48)
    out = sparse_attention(query, [pool], [torch.tensor([[5, -1, -1]])], torch.zeros(2), 1.0)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_to_itself(bad: float) -> None:
    pool = EntryPool.zeros(2, kv_packing(4, 200, 32), torch.float32, "cpu")
    entries = noise(3, 200)
    entries[1, 70] = bad
    store_entries(pool, torch.arange(3), entries)
    stored = load_rows(pool, torch.arange(3), torch.float32)
    assert stored[1, 64:128].isnan().all()
    assert stored.isfinite().all(1).tolist() == [True, False, True]
