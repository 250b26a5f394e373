"""Checkpoints in every storage variant, and large ones that occupy no disk."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from worker.config import ModelConfig
from worker.model.checkpoint import OFFICIAL, TensorSpec, Variant, expected_tensors
from worker.model.quantization import dequantise_fp4, dequantise_fp8, quantise_fp8
from worker.model.shards import INDEX, SINGLE
from worker.model.tiny import official_config

Tensors = dict[str, torch.Tensor]


def write_sparse(
    directory: Path, config: ModelConfig, variant: Variant = OFFICIAL, shards: int = 1
) -> None:
    """Real headers over holes that read as zeros, the tensors spread evenly over `shards`."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(official_config(config)))
    table = list(expected_tensors(config, variant).items())
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard}.safetensors"
        part = dict(table[shard::shards])
        _write_hollow(directory / file, part)
        weight_map |= dict.fromkeys(part, file)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def _write_hollow(path: Path, table: dict[str, TensorSpec]) -> None:
    header, end = {}, 0
    for name, spec in table.items():
        span = [end, end + spec.nbytes]
        header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": span}
        end += spec.nbytes
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)


def rewrite(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """`source` as one file after `change` of all its tensors."""
    tensors: Tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
    target.mkdir()
    save_file(change(tensors), target / SINGLE)
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


def fp8_experts(tensors: Tensors) -> Tensors:
    """FP4 experts as e4m3 in blocks of 128 x 128: exact for the exponents that `tiny` draws."""
    changed = dict(tensors)
    for name, weight in _dequantised(tensors).items():
        if ".experts." in name:
            changed[name], changed[_scale(name)] = quantise_fp8(weight)
    return changed


def float_scales(tensors: Tensors) -> Tensors:
    """Every matrix e4m3 with float32 scales, as in the Base checkpoint."""
    changed = fp8_experts(tensors)
    return {n: t.float() if n.endswith(".scale") else t for n, t in changed.items()}


def bfloat16(tensors: Tensors) -> Tensors:
    """Every matrix in bfloat16, without scales; the other tensors as they are."""
    return _unquantised(tensors, torch.bfloat16)


def float32(tensors: Tensors) -> Tensors:
    """Every matrix in float32, without scales; the other tensors as they are."""
    return _unquantised(tensors, torch.float32)


def bfloat16_experts(tensors: Tensors) -> Tensors:
    """FP8 dense layers and unquantised experts."""
    changed = dict(tensors)
    for name, weight in _dequantised(tensors).items():
        if ".experts." in name:
            changed[name] = weight.bfloat16()
            del changed[_scale(name)]
    return changed


def without_mtp(tensors: Tensors) -> Tensors:
    """No tensor of the multi-token-prediction blocks."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("mtp.")}


def _unquantised(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    changed = {name: t for name, t in tensors.items() if not name.endswith(".scale")}
    return changed | {name: t.to(dtype) for name, t in _dequantised(tensors).items()}


def _dequantised(tensors: Tensors) -> Tensors:
    """float32 values of every quantised matrix."""
    convert = {torch.int8: dequantise_fp4, torch.float8_e4m3fn: dequantise_fp8}
    return {
        name: convert[tensor.dtype](tensor, tensors[_scale(name)])
        for name, tensor in tensors.items()
        if tensor.dtype in convert
    }


def _scale(name: str) -> str:
    return name.removesuffix("weight") + "scale"
