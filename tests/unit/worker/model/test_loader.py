import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import rewrite as rewritten
from support.checkpoints import without_mtp
from support.v4 import SMALL

from worker.errors import CheckpointError, ConfigError
from worker.model.checkpoint import expected_tensors
from worker.model.loader import Weights, load_weights, stacked_experts
from worker.model.shards import INDEX
from worker.model.tiny import write_checkpoint

SHARD = "model-00002-of-00002.safetensors"
NAME = "layers.1.attn.compressor.ape"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loader") / "model"
    write_checkpoint(directory, SMALL)
    return directory


@pytest.fixture
def model(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "model"))


def load(directory: Path) -> Weights:
    return load_weights(directory, SMALL, torch.float32)


def problems(directory: Path) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        load(directory)
    return caught.value.problems


def rewrite(model: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the second shard's tensors, and the index to match."""
    tensors = load_file(model / SHARD)
    before = set(tensors)
    change(tensors)
    save_file(tensors, model / SHARD)
    index = json.loads((model / INDEX).read_text())
    for name in before - set(tensors):
        del index["weight_map"][name]
    index["weight_map"].update(dict.fromkeys(tensors, SHARD))
    (model / INDEX).write_text(json.dumps(index))


def test_an_intact_checkpoint_loads_everything_but_mtp_and_scales(intact: Path) -> None:
    used = {n for n in expected_tensors(SMALL) if not n.startswith("mtp.")}
    assert set(load(intact)) == {n for n in used if not n.endswith(".scale")}


def test_a_layers_experts_are_stacked_without_a_copy(intact: Path) -> None:
    weights = load(intact)
    prefix, last = "layers.1.ffn.", SMALL.n_routed_experts - 1
    w1, w2, w3 = (weights[f"{prefix}experts.{last}.w{i}.weight"] for i in (1, 2, 3))
    gate_up, down = stacked_experts(weights, prefix, range(last + 1))
    assert gate_up.shape[0] == down.shape[0] == SMALL.n_routed_experts
    assert gate_up[last].data_ptr() == w1.data_ptr()
    assert torch.equal(gate_up[last], torch.cat((w1, w3)))
    assert down[last].data_ptr() == w2.data_ptr()
    assert not any(name.startswith(f"{prefix}experts.") for name in weights)


def test_a_drafting_runner_gets_the_mtp_block_as_well(intact: Path) -> None:
    drafting = load_weights(intact, SMALL, torch.float32, mtp=True)
    used = {n for n in expected_tensors(SMALL) if not n.endswith(".scale")}
    assert set(drafting) == used
    assert drafting["mtp.0.e_proj.weight"].shape == (SMALL.hidden_size, SMALL.hidden_size)
    alone = load_weights(intact, SMALL, torch.float32, mtp=True, experts=range(2))
    assert "mtp.0.ffn.experts.1.w2.weight" in alone
    assert "mtp.0.ffn.experts.2.w2.weight" not in alone


def test_drafting_without_exactly_one_mtp_block_names_the_fix(intact: Path, tmp_path: Path) -> None:
    bare = rewritten(intact, tmp_path / "bare", without_mtp)
    with pytest.raises(ConfigError, match=r"no multi-token-prediction.*--draft-tokens 0"):
        load_weights(bare, SMALL, torch.float32, mtp=True)
    assert load_weights(bare, SMALL, torch.float32)
    ratios = (*SMALL.compress_ratios, 0)
    two = replace(SMALL, num_nextn_predict_layers=2, compress_ratios=ratios)
    write_checkpoint(tmp_path / "two", two)
    with pytest.raises(ConfigError, match=r"2 multi-token-prediction.*--draft-tokens 0"):
        load_weights(tmp_path / "two", two, torch.float32, mtp=True)
    assert load_weights(tmp_path / "two", two, torch.float32)


def test_all_missing_and_unexpected_tensors_are_named_at_once(model: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[NAME], tensors["mtp.0.enorm.weight"]
        tensors["layers.9.stray"] = torch.zeros(1)

    rewrite(model, change)
    assert sorted(problems(model)) == [
        f"{NAME}: missing",
        "layers.9.stray: unexpected",
        "mtp.0.enorm.weight: missing",
    ]


def test_wrong_dtype_and_wrong_shape_are_named(model: Path) -> None:
    gate = "layers.0.ffn.gate.weight"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME] = tensors[NAME].bfloat16()
        tensors[gate] = tensors[gate][:-1].contiguous()

    rewrite(model, change)
    rows, columns = SMALL.n_routed_experts, SMALL.hidden_size
    assert sorted(problems(model)) == [
        f"{gate}: BF16 [{rows - 1}, {columns}], expected BF16 [{rows}, {columns}]",
        f"{NAME}: BF16 [4, 64], expected F32 [4, 64]",
    ]


def test_scales_stored_as_floats_are_refused(model: Path) -> None:
    scale = "layers.0.attn.wkv.scale"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[scale] = tensors[scale].float()

    rewrite(model, change)
    assert problems(model) == [f"{scale}: F32 [1, 1], expected F8_E8M0 [1, 1]"]


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, 100_000, -1])
def test_a_truncated_shard_is_named(model: Path, kept_bytes: int) -> None:
    content = (model / SHARD).read_bytes()
    (model / SHARD).write_bytes(content[:kept_bytes])
    assert [p.split(":")[0] for p in problems(model)] == [SHARD]


def test_a_shard_with_trailing_bytes_is_refused(model: Path) -> None:
    with (model / SHARD).open("ab") as file:
        file.write(b"\0")
    assert "bytes on disk" in problems(model)[0]


@pytest.mark.parametrize("header", [b"{}", b"[1]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}', b"{"])
def test_a_garbled_header_is_refused(model: Path, header: bytes) -> None:
    (model / SHARD).write_bytes(len(header).to_bytes(8, "little") + header)
    assert problems(model)


def edit_header(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the second shard's header, leaving its data alone."""
    content = (model / SHARD).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    prefix = len(encoded).to_bytes(8, "little")
    (model / SHARD).write_bytes(prefix + encoded + content[8 + length :])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_offsets", []),
        ("data_offsets", ""),
        ("data_offsets", [0, float("inf")]),
        ("data_offsets", [-4, 0]),
        ("shape", [True]),
        ("shape", [2.0]),
        ("shape", None),
        ("dtype", ["F32"]),
    ],
)
def test_a_header_entry_of_other_types_is_refused_by_name(
    model: Path, key: str, value: object
) -> None:
    edit_header(model, lambda header: header[NAME].update({key: value}))
    (problem,) = problems(model)
    assert f"{NAME} has no usable dtype, shape and data_offsets" in problem


def test_tensors_that_overlap_or_leave_gaps_are_named(model: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        start, stop = header[NAME]["data_offsets"]
        header[NAME]["data_offsets"] = [start - 4, stop]

    edit_header(model, change)
    assert [problem.split(":")[1].split(" byte")[0] for problem in problems(model)] == [
        " starts at",
        " 1028",
    ]


def test_a_missing_shard_is_named(model: Path) -> None:
    (model / SHARD).unlink()
    assert problems(model)[0].startswith(SHARD)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../b"}}']
)
def test_a_garbled_index_is_refused(model: Path, content: str) -> None:
    (model / INDEX).write_text(content)
    assert problems(model)


def test_a_tensor_in_another_shard_than_the_index_says_is_named(model: Path) -> None:
    index = json.loads((model / INDEX).read_text())
    index["weight_map"][NAME] = "model-00001-of-00002.safetensors"
    (model / INDEX).write_text(json.dumps(index))
    assert problems(model)[0].startswith(f"{NAME}: in {SHARD}")


def test_values_that_are_not_finite_are_named(model: Path) -> None:
    scale = "layers.2.ffn.experts.3.w2.scale"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME][0, 0] = float("inf")
        tensors[scale].view(torch.uint8)[0, 0] = 255

    rewrite(model, change)
    assert sorted(p.split(":")[0] for p in problems(model)) == [
        NAME,
        "layers.2.ffn.experts.3.w2.weight",
    ]


def test_expert_ids_out_of_range_are_refused(model: Path) -> None:
    table = "layers.0.ffn.gate.tid2eid"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[table][7, 0] = SMALL.n_routed_experts

    rewrite(model, change)
    assert problems(model) == [f"{table}: expert ids 0..8 outside 0..7"]


def test_bfloat16_keeps_the_precise_parts_in_float32(intact: Path) -> None:
    weights = load_weights(intact, SMALL, torch.bfloat16)
    wide = {name for name, tensor in weights.items() if tensor.dtype == torch.float32}
    assert {"head.weight", "norm.weight", NAME, "layers.1.attn.compressor.wkv.weight"} <= wide
    assert {"layers.3.ffn.gate.weight", "layers.3.ffn.gate.bias", "layers.0.hc_attn_fn"} <= wide
    narrow = (
        "embed.weight",
        "layers.1.attn.wkv.weight",
        "layers.1.attn.indexer.weights_proj.weight",
    )
    assert wide.isdisjoint(narrow)
