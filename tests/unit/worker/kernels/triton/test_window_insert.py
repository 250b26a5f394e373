"""Queries and key-values against the reference, which rounds where the kernel does: in float32
within 2^-19, in bfloat16 within one unit in the last place of what a float32 sum's order moves."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, kv_packing

EPS = 1e-6
BLOCKS = 3


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    radians = 3 * noise(*shape, seed=seed)
    return torch.polar(torch.ones_like(radians), radians)


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 4),
    st.sampled_from([(1, 32, 8), (4, 96, 10), (3, 512, 32)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_heads_are_normed_turned_and_rounded(
    device: str,
    tokens: int,
    geometry: tuple[int, int, int],
    dtype: torch.dtype,
    rounded: bool,
    seed: int,
) -> None:
    heads, width, pairs = geometry
    query, kv = noise(tokens, heads, width, seed=seed).to(dtype), noise(tokens, width).to(dtype)
    norm, angles = noise(width, seed=1), unit(tokens, pairs, seed=seed)
    window = EntryPool(torch.full((BLOCKS, 4, width), torch.nan, dtype=dtype))
    found_query, found_kv = query.to(device, copy=True), kv.to(device, copy=True)
    moved = EntryPool(window.data.to(device))
    kernels.prepare_heads_(
        found_query,
        found_kv,
        norm.to(device),
        angles.to(device),
        moved,
        None,
        eps=EPS,
        rounded=rounded,
    )
    reference.prepare_heads_(query, kv, norm, angles, window, None, eps=EPS, rounded=rounded)
    step = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-19
    torch.testing.assert_close(found_query.cpu(), query, rtol=step, atol=4 * step)
    coarse = 2.0**-3 if rounded else step  # a step of e4m3, where a sum fell on the other side
    torch.testing.assert_close(found_kv.cpu(), kv, rtol=coarse, atol=4 * step)
    assert (found_kv.cpu() != kv).sum() <= 0.02 * kv.numel() or not rounded
    assert moved.data.isnan().all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_window_holds_the_key_values_that_attention_sees(
    device: str, packed: bool, dtype: torch.dtype
) -> None:
    query, kv = noise(3, 2, 128).to(device, dtype), noise(3, 128).to(device, dtype)
    if packed:
        window = EntryPool.zeros(BLOCKS, kv_packing(4, 128, 32), dtype, device)
    else:
        window = EntryPool(torch.full((BLOCKS, 4, 128), torch.nan, dtype=dtype, device=device))
    rows = torch.tensor([11, 0, 6])
    norm, angles = noise(128).to(device), unit(3, 16).to(device)
    kernels.prepare_heads_(
        query, kv, norm, angles, window, rows.to(device), eps=EPS, rounded=packed
    )
    whole = kernels.load_blocks(window, torch.arange(BLOCKS, device=device), dtype).flatten(0, 1)
    assert torch.equal(whole[rows], kv)
    others = [row for row in range(4 * BLOCKS) if row not in rows.tolist()]
    assert not torch.nan_to_num(whole[others]).any()


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of NaN
def test_what_is_not_finite_stays_in_its_head(device: str) -> None:
    query, kv = noise(3, 4, 64).to(device), noise(3, 64).to(device)
    query[1, 2, 7] = torch.nan
    window = EntryPool.zeros(1, (4, 64), torch.float32, device)
    norm, angles = noise(64).to(device), unit(3, 8).to(device)
    kernels.prepare_heads_(query, kv, norm, angles, window, None, eps=EPS, rounded=True)
    assert int(query.isfinite().all(-1).sum()) == 11
    assert kv.isfinite().all()
