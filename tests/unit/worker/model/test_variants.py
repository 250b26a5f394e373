"""Every storage variant of one model loads to the same weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import checkpoints
from support.checkpoints import Tensors, rewrite
from support.v4 import SMALL

from worker.errors import CheckpointError
from worker.model.checkpoint import Form, Naming, Variant
from worker.model.loader import Weights, load_weights, open_checkpoint
from worker.model.shards import SINGLE
from worker.model.tiny import write_checkpoint

EXPERT = "layers.2.ffn.experts.3.w1"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("variants") / "model"
    write_checkpoint(directory, SMALL, seed=5)
    return directory


@pytest.fixture(scope="module")
def weights(official: Path) -> Weights:
    return load_weights(official, SMALL, torch.float32)


def assert_equal(ours: Weights, expected: Weights) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(
    ("change", "variant"),
    [
        (dict, Variant()),
        (checkpoints.fp8_experts, Variant(experts=Form.FP8)),
        (
            checkpoints.float_scales,
            Variant(dense=Form.FP8_FLOAT_SCALES, experts=Form.FP8_FLOAT_SCALES),
        ),
        (checkpoints.bfloat16_experts, Variant(experts=Form.UNQUANTISED)),
        (checkpoints.bfloat16, Variant(dense=Form.UNQUANTISED, experts=Form.UNQUANTISED)),
        (checkpoints.float32, Variant(dense=Form.UNQUANTISED, experts=Form.UNQUANTISED)),
        (checkpoints.without_mtp, Variant(mtp=False)),
    ],
)
def test_a_variant_is_told_from_its_headers_and_loads_the_same_weights(
    official: Path,
    weights: Weights,
    tmp_path: Path,
    change: Callable[[Tensors], Tensors],
    variant: Variant,
) -> None:
    directory = rewrite(official, tmp_path / "model", change)
    found = open_checkpoint(directory, SMALL).variant
    assert found == variant
    assert found.naming is Naming.OFFICIAL
    assert_equal(load_weights(directory, SMALL, torch.float32), weights)


def test_float32_scales_need_not_be_powers_of_two(official: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        changed = checkpoints.float_scales(tensors)
        changed[f"{EXPERT}.scale"][0, 0] = 0.3
        return changed

    directory = rewrite(official, tmp_path / "model", change)
    codes = load_file(directory / SINGLE)[f"{EXPERT}.weight"]
    loaded = load_weights(directory, SMALL, torch.float32)[f"{EXPERT}.weight"]
    assert torch.equal(loaded, codes.float() * torch.tensor(0.3))


def problems(directory: Path) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        load_weights(directory, SMALL, torch.float32)
    return caught.value.problems


def test_one_expert_of_another_form_is_named(official: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        other = checkpoints.fp8_experts(tensors)
        names = [f"{EXPERT}.weight", f"{EXPERT}.scale"]
        return tensors | {name: other[name] for name in names}

    directory = rewrite(official, tmp_path / "model", change)
    assert sorted(problem.split(",")[0] for problem in problems(directory)) == [
        f"{EXPERT}.scale: F8_E8M0 [1",
        f"{EXPERT}.weight: F8_E4M3 [64",
    ]


def test_another_quantisation_is_refused_by_its_dtypes(official: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {
            name: tensor.view(torch.uint8) if tensor.dtype == torch.int8 else tensor
            for name, tensor in tensors.items()
        }

    directory = rewrite(official, tmp_path / "model", change)
    (problem,) = problems(directory)
    assert problem.startswith("U8 with F8_E8M0 scales; known: I8 with F8_E8M0 scales; ")


def test_quantised_matrices_without_scales_are_refused(official: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {name: t for name, t in tensors.items() if not name.endswith(".scale")}

    directory = rewrite(official, tmp_path / "model", change)
    assert problems(directory)[0].startswith("F8_E4M3 without scales")


def test_a_single_file_needs_no_index(official: Path, tmp_path: Path) -> None:
    directory = rewrite(official, tmp_path / "model", dict)
    tensors = load_file(directory / SINGLE)
    del tensors["embed.weight"]
    save_file(tensors, directory / SINGLE)
    assert problems(directory) == ["embed.weight: missing"]
