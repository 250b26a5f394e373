"""The fused compressor against float64, and against its own parts.

In float32 an entry is within 2^-18 of the largest of its values. Packed, a value is also rounded
once: to half a step of e4m3, 2^-4 of it or 2^-10 of its group's scale, whichever is more.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import reference
from worker.kernels import triton as kernels
from worker.kernels.entry_pool import EntryPool, Packing, index_packing, kv_packing

EPS = 1e-6
SLOTS, RING, PAGES = 4, 10, 5
lenient = settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case(
    entries: int, overlap: bool, ratio: int, dim: int, pairs: int, per_page: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Arguments of a chunk of 9 tokens of 2 sequences: what an entry pools comes from the chunk,
    from either's ring, or is absent but for its last token; every other ring is NaN."""
    g = torch.Generator().manual_seed(seed)
    tokens, columns = ratio * (1 + overlap), dim * (1 + overlap)
    slots = torch.tensor([3, 1])
    tail = torch.full((SLOTS, RING, 2, columns), torch.nan)
    tail[slots] = noise(2, RING, 2, columns, seed=seed + 1)
    absent = 9 + 2 * RING
    sources = torch.randint(0, absent, (entries, tokens), generator=g)
    sources[:, : tokens // 2][torch.rand(entries, tokens // 2, generator=g) < 0.3] = absent
    radians = 3 * noise(entries, pairs, seed=seed + 2)
    return {
        "rows": noise(9, 2, columns, seed=seed + 3),
        "tail": tail,
        "slots": slots,
        "sources": sources,
        "bias": noise(ratio, columns, seed=seed + 4),
        "norm": noise(dim, seed=seed + 5),
        "angles": torch.polar(torch.ones_like(radians), radians),
        "stored_at": torch.randperm(PAGES * per_page, generator=g)[:entries],
    }


def run(
    op: Callable[..., None], case: dict[str, torch.Tensor], pool: EntryPool, rounding: str
) -> EntryPool:
    """The pool, after the op ran where the pool is."""
    given = {name: tensor.to(pool.data.device) for name, tensor in case.items()}
    stored_at = given.pop("stored_at")
    op(*given.values(), pool, stored_at, eps=EPS, rounding=rounding)
    return pool


def exact(case: dict[str, torch.Tensor]) -> torch.Tensor:
    """The entries [E, D] in float64, before any rounding."""
    double = {
        name: tensor.to(torch.complex128) if tensor.is_complex() else tensor.double()
        for name, tensor in case.items()
        if tensor.is_floating_point() or tensor.is_complex()
    }
    ratio, dim = len(case["bias"]), len(case["norm"])
    tails = double["tail"][case["slots"]].flatten(0, 1)
    absent = torch.zeros(1, *tails.shape[1:], dtype=torch.float64)
    absent[:, 1] = -torch.inf
    found = torch.cat((double["rows"], tails, absent))[case["sources"]]
    for token in range(found.shape[1]):
        found[:, token, 1] += double["bias"][token % ratio]
    if found.shape[1] > ratio:
        found = torch.cat((found[:, :ratio, :, :dim], found[:, ratio:, :, dim:]), 1)
    pooled = (found[:, :, 1].softmax(1) * found[:, :, 0]).sum(1)
    x = pooled / (pooled.square().mean(-1, keepdim=True) + EPS).sqrt() * double["norm"]
    turn = double["angles"]
    last = x[:, dim - 2 * turn.shape[1] :]
    pairs = torch.view_as_complex(last.reshape(*turn.shape, 2))
    x[:, dim - 2 * turn.shape[1] :] = torch.view_as_real(pairs * turn).flatten(1)
    return x


def plain_pool(per_page: int, dim: int, device: str) -> EntryPool:
    return EntryPool(torch.full((PAGES, per_page, dim), torch.nan, device=device))


@lenient
@given(
    st.integers(0, 4),
    st.sampled_from([(True, 4), (False, 4), (False, 20), (False, 128)]),
    st.sampled_from([(32, 8), (100, 3), (512, 32)]),
    st.integers(0, 1000),
)
def test_entries_are_pooled_normed_and_turned(
    device: str, entries: int, kind: tuple[bool, int], geometry: tuple[int, int], seed: int
) -> None:
    given = case(entries, *kind, *geometry, per_page=3, seed=seed)
    pool = run(kernels.compress_entries, given, plain_pool(3, geometry[0], device), "none")
    found, expected = pool.data.flatten(0, 1).cpu(), exact(given)
    bound = 2.0**-18 * float(expected.abs().amax()) if entries else 0.0
    stored = found[given["stored_at"]]
    torch.testing.assert_close(stored.double(), expected, rtol=0, atol=bound)
    assert int(found.isfinite().all(-1).sum()) == entries


@lenient
@given(
    st.integers(1, 4),
    st.sampled_from(
        [
            (True, 4, 64, 8, kv_packing(3, 64, 16), "entry"),
            (True, 4, 512, 32, kv_packing(2, 512, 64), "entry"),
            (False, 16, 512, 32, kv_packing(2, 512, 64), "none"),
        ]
    ),
    st.integers(0, 1000),
)
def test_packed_entries_are_those_rounded_once(
    device: str, entries: int, kind: tuple[bool, int, int, int, Packing, str], seed: int
) -> None:
    overlap, ratio, dim, pairs, packing, rounding = kind
    given = case(entries, overlap, ratio, dim, pairs, packing.entries, seed)
    pool = EntryPool.zeros(PAGES, packing, torch.float32, device)
    run(kernels.compress_entries, given, pool, rounding)
    blocks = torch.arange(PAGES)
    on_cpu = EntryPool(pool.data.cpu(), packing)
    found = reference.load_blocks(on_cpu, blocks, torch.float32).flatten(0, 1)
    expected = exact(given)
    scale = expected.abs().amax() / 224
    bound = (expected.abs() * 2.0**-4).clamp(min=float(scale) * 2.0**-10) * (1 + 2.0**-10)
    difference = found[given["stored_at"]].double() - expected
    assert bool((difference.abs() <= bound + 2.0**-16).all())
    assert int(found.any(-1).sum()) == entries


@pytest.mark.parametrize("packed", [False, True])
def test_index_keys_are_the_transformed_and_rounded_entries(device: str, packed: bool) -> None:
    given = case(5, True, 4, 128, 32, 4)
    plain = run(kernels.compress_entries, given, plain_pool(4, 128, device), "none")
    keys = kernels.quantise_index(plain.data.flatten(0, 1)[given["stored_at"].to(device)]).cpu()
    if packed:
        pool = EntryPool.zeros(PAGES, index_packing(4, 128), torch.float32, device)
    else:
        pool = plain_pool(4, 128, device)
    run(kernels.compress_entries, given, pool, "index")
    whole = kernels.load_blocks(pool, torch.arange(PAGES, device=device), torch.float32)
    assert torch.equal(whole.flatten(0, 1).cpu()[given["stored_at"]], keys)


def test_repeats_are_the_same_bit_for_bit(device: str) -> None:
    given = case(6, True, 4, 512, 32, 4)
    packing = kv_packing(4, 512, 64)
    first, second = (
        run(
            kernels.compress_entries,
            given,
            EntryPool.zeros(PAGES, packing, torch.float32, device),
            "entry",
        ).data
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")  # the interpreter's, of NaN
def test_what_is_not_finite_reaches_only_the_entries_that_pool_it(device: str) -> None:
    given = case(3, True, 4, 64, 8, 4)
    given["sources"] = torch.arange(24).view(3, 8)
    given["rows"][8, 0, 5] = torch.nan  # pooled into the second entry's earlier half
    pool = run(kernels.compress_entries, given, plain_pool(4, 64, device), "none")
    stored = pool.data.flatten(0, 1).cpu()[given["stored_at"]]
    assert stored.isfinite().all(1).tolist() == [True, False, True]
