"""What fits where: published catalogues, logged concurrency, and laws that hold for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.planner.capacity import Budget, budget
from controlplane.planner.geometry import V4_FLASH
from controlplane.planner.memory import CacheSize, cache_size
from controlplane.planner.refusal import DoesNotFit
from controlplane.planner.weights import GIB, Form, total_bytes

MILLION = 2**20
# GiB of weights in one cloud's tables: a smaller quantisation, the native checkpoint, bfloat16.
A, B = 142.45, total_bytes(V4_FLASH) / GIB
C = total_bytes(V4_FLASH, Form.BFLOAT16, mtp=False) / GIB
PUBLISHED = [
    (A, 3, 80, 3.017),
    (A, 2, 94, 1.491),
    (A, 4, 80, 4.644),
    (A, 2, 141, 7.287),
    (A, 8, 32, 1.164),
    (B, 3, 80, 2.734),
    (B, 2, 94, 1.065),
    (B, 4, 80, 4.431),
    (B, 2, 141, 6.862),
    (B, 8, 32, 1.058),
    (C, 6, 141, 4.949),
    (C, 8, 141, 7.974),
]


@pytest.mark.parametrize(("weights_gib", "gpus", "memory", "claimed"), PUBLISHED)
def test_published_rows_are_one_copy_of_the_cache_and_vllms_default_utilization(
    weights_gib: float, gpus: int, memory: float, claimed: float
) -> None:
    """Our reading of that catalogue: marketing sizes as GiB, 7.297 GiB for a million tokens."""
    room = Budget(0.90 * memory * GIB, round(weights_gib / gpus * GIB), 2.499 * GIB, 1, 1.0)
    theirs = CacheSize(7.297 * GIB / MILLION, 0, 0)
    assert room.sequences(theirs, MILLION) == pytest.approx(claimed, rel=1e-3)


@pytest.mark.parametrize(("parallelism", "logged"), [("tensor", 20.4), ("expert", 156.9)])
def test_logged_concurrency_on_eight_b200_is_met_within_a_tenth(
    parallelism: str, logged: float
) -> None:
    """Logged by vLLM at a million tokens and 0.95 utilisation: 7.7 times more with experts."""
    room = budget(V4_FLASH, parallelism, 8, memory_gib=179.06, utilization=0.95)
    assert room.sequences(cache_size(V4_FLASH, "auto"), MILLION) == pytest.approx(logged, rel=0.1)


def test_tensor_parallelism_replicates_the_cache_and_experts_add_it_up() -> None:
    cache = cache_size(V4_FLASH, "fp8")
    tensor = budget(V4_FLASH, "tensor", 8, memory_gib=140.4).sequences(cache, MILLION)
    expert = budget(V4_FLASH, "expert", 8, memory_gib=140.4).sequences(cache, MILLION)
    assert 7 < expert / tensor < 8


def test_what_does_not_fit_says_by_how_much() -> None:
    one = budget(V4_FLASH, "tensor", 1, memory_gib=140.4)
    with pytest.raises(DoesNotFit, match="GiB short on each GPU") as caught:
        one.require(cache_size(V4_FLASH, "fp8"), 8192, "one H200")
    # 148.65 of weights, 2.5 of overhead and 0.04 of cache, of 0.9 * 140.4.
    assert caught.value.missing_gib == pytest.approx(148.65 + 2.5 + 0.04 - 126.36, abs=0.1)


@given(
    parallelism=st.sampled_from(["tensor", "expert", "pipeline"]),
    gpus=st.sampled_from([1, 2, 4, 8]),
    memory_gib=st.floats(24, 288),
    tokens=st.integers(1, MILLION),
)
def test_more_memory_or_shorter_requests_never_hold_fewer(
    parallelism: str, gpus: int, memory_gib: float, tokens: int
) -> None:
    cache = cache_size(V4_FLASH, "fp8")
    room = budget(V4_FLASH, parallelism, gpus, memory_gib=memory_gib)
    larger = budget(V4_FLASH, parallelism, gpus, memory_gib=memory_gib + 1)
    held = room.sequences(cache, tokens)
    assert held <= larger.sequences(cache, tokens)
    assert held <= room.sequences(cache, max(1, tokens // 2))
    assert (held == 0) == (room.cache_bytes <= 0)


@given(gpus=st.sampled_from([1, 2, 4, 8]), memory_gib=st.floats(24, 288))
def test_what_fits_and_what_is_refused_leave_no_gap(gpus: int, memory_gib: float) -> None:
    cache = cache_size(V4_FLASH, "fp8")
    room = budget(V4_FLASH, "expert", gpus, memory_gib=memory_gib)
    held = room.sequences(cache, MILLION)
    if held > room.copies * 1.000001:
        room.require(cache, MILLION, "it")
    elif held < room.copies * 0.999999:
        with pytest.raises(DoesNotFit) as caught:
            room.require(cache, MILLION, "it")
        assert caught.value.missing_gib > 0
