"""Weights are added up tensor by tensor and meet the published checkpoint to the byte."""

import pytest

from controlplane.planner.geometry import TINY, V4_FLASH
from controlplane.planner.weights import (
    GIB,
    Form,
    active_parameters,
    bytes_per_gpu,
    parameters,
    total_bytes,
)


def test_all_tensors_add_up_to_the_published_size_of_the_checkpoint() -> None:
    assert total_bytes(V4_FLASH) == 159_609_485_896


def test_parameters_are_those_published() -> None:
    assert parameters(V4_FLASH, mtp=False) / 1e9 == pytest.approx(284.3, abs=0.05)
    assert (parameters(V4_FLASH) - parameters(V4_FLASH, mtp=False)) / 1e9 == pytest.approx(
        6.6, abs=0.05
    )
    assert active_parameters(V4_FLASH) / 1e9 == pytest.approx(13, abs=0.5)


def test_in_bfloat16_without_drafting_it_is_529_7_gib() -> None:
    assert total_bytes(V4_FLASH, Form.BFLOAT16, mtp=False) / GIB == pytest.approx(529.7, abs=0.05)


@pytest.mark.parametrize(("gpus", "gigabytes"), [(2, 84.3), (4, 46.7), (8, 27.8)])
def test_expert_parallelism_replicates_all_but_the_experts(gpus: int, gigabytes: float) -> None:
    assert bytes_per_gpu(V4_FLASH, "expert", gpus) / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_tensor_parallelism_holds_less_than_experts_divided_and_more_than_an_even_share(
    gpus: int,
) -> None:
    each = bytes_per_gpu(V4_FLASH, "tensor", gpus)
    assert total_bytes(V4_FLASH) / gpus <= each < bytes_per_gpu(V4_FLASH, "expert", gpus)


def test_the_fullest_stage_of_a_pipeline_has_the_layer_that_is_left_over() -> None:
    # 43 layers over 3 GPUs: 15, 14 and 14.
    assert bytes_per_gpu(V4_FLASH, "pipeline", 3) == pytest.approx(
        total_bytes(V4_FLASH) * 15 / 43, abs=1
    )


def test_one_gpu_holds_everything_however_it_is_divided() -> None:
    for parallelism in ("tensor", "pipeline", "expert"):
        assert bytes_per_gpu(TINY, parallelism, 1) == total_bytes(TINY)
