"""Reads an official checkpoint: checks every header first, then dequantises to a compute dtype.

`ModelRunner` calls `load_weights`. A checkpoint that differs in any way from what config.json
promises is refused with one `CheckpointError` that lists every difference, before any tensor data
is read. MTP tensors are checked but not loaded: nothing runs them yet.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from worker.config import ModelConfig
from worker.errors import CheckpointError
from worker.model.checkpoint import TensorSpec, expected_tensors
from worker.model.quantization import dequantise_fp4, dequantise_fp8

INDEX = "model.safetensors.index.json"
HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own bound

# BF16 on disk, but multiplied in float32 whatever the compute dtype.
FLOAT32_SUFFIXES = (
    "norm.weight",
    "gate.weight",
    "compressor.wkv.weight",
    "compressor.wgate.weight",
    "head.weight",
)

Weights = dict[str, torch.Tensor]


def load_weights(
    directory: str | Path, config: ModelConfig, compute: torch.dtype, device: str = "cpu"
) -> Weights:
    """Every tensor that the forward pass uses, by official name, dequantised; scales are folded
    in and dropped. Raises CheckpointError."""
    root = Path(directory)
    table = expected_tensors(config)
    files = check_headers(root, table)
    wanted = [n for n in table if not n.startswith("mtp.") and not n.endswith(".scale")]
    weights: Weights = {}
    problems: list[str] = []
    for name, tensor in _read(root, files, wanted, table):
        problem = _value_problem(name, tensor, config)
        if problem:
            problems.append(problem)
        else:
            weights[name] = tensor.to(device=device, dtype=_dtype(name, table[name], compute))
    if problems:
        raise CheckpointError(f"{root}: corrupt tensor values", problems)
    return weights


def check_headers(root: Path, table: dict[str, TensorSpec]) -> dict[str, str]:
    """Compare every shard's header with the table; return the file of each tensor. Raises
    CheckpointError naming each missing, unexpected, misplaced or malformed tensor and file."""
    weight_map = _weight_map(root)
    problems: list[str] = []
    found: dict[str, TensorSpec] = {}
    for file in sorted(set(weight_map.values())):
        try:
            header = read_header(root / file)
        except CheckpointError as error:
            problems += error.problems
            continue
        for name, spec in header.items():
            if weight_map.get(name) != file:
                problems.append(f"{name}: in {file}, but the index says {weight_map.get(name)}")
            found[name] = spec
    if not problems:
        problems += [f"{name}: missing" for name in table if name not in found]
        problems += [f"{name}: unexpected" for name in found if name not in table]
    for name in table.keys() & found.keys():
        if found[name] != table[name]:
            problems.append(f"{name}: {_text(found[name])}, expected {_text(table[name])}")
    if problems:
        raise CheckpointError(f"{root}: the checkpoint does not match config.json", problems)
    return weight_map


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes in one safetensors file. Raises CheckpointError if the file is
    absent, truncated or not safetensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT_BYTES, size - 8):
                raise ValueError("header length out of range")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes on disk, {8 + length + end} promised by the header")
        return {n: TensorSpec(e["dtype"], tuple(e["shape"])) for n, e in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path.name}: not a whole safetensors file: {error}"
        raise CheckpointError(f"{path.parent}: unreadable shard", [problem]) from error


def _weight_map(root: Path) -> dict[str, str]:
    try:
        weight_map = json.loads((root / INDEX).read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(f, str) and Path(f).name == f for f in weight_map.values()):
            raise ValueError("weight_map values must be file names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{root}: unreadable {INDEX}", [str(error)]) from error
    return dict(weight_map)


def _read(
    root: Path, files: dict[str, str], names: list[str], table: dict[str, TensorSpec]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Dequantised tensors in table order, one shard open per file."""
    try:
        shards = {f: safe_open(root / f, framework="pt") for f in sorted(set(files.values()))}

        def get(name: str) -> torch.Tensor:
            tensor: torch.Tensor = shards[files[name]].get_tensor(name)  # type: ignore[no-untyped-call]
            return tensor

        dequantise: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
        dequantise = {"F8_E4M3": dequantise_fp8, "I8": dequantise_fp4}
        for name in names:
            tensor = get(name)
            convert = dequantise.get(table[name].dtype)
            if convert is not None:
                scale = name.removesuffix("weight") + "scale"
                tensor = convert(tensor, get(scale))
            yield name, tensor
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{root}: unreadable shard", [str(error)]) from error


def _value_problem(name: str, tensor: torch.Tensor, config: ModelConfig) -> str | None:
    if name.endswith(".tid2eid"):
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= config.n_routed_experts:
            return f"{name}: expert ids {low}..{high} outside 0..{config.n_routed_experts - 1}"
        return None
    return None if bool(torch.isfinite(tensor).all()) else f"{name}: values that are not finite"


def _dtype(name: str, spec: TensorSpec, compute: torch.dtype) -> torch.dtype:
    if spec.dtype == "I64":
        return torch.int64
    wide = spec.dtype == "F32" or name.endswith(FLOAT32_SUFFIXES)
    return torch.float32 if wide else compute


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"
