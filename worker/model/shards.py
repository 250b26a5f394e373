"""Where every tensor of a checkpoint lies on disk, and how its bytes are read.

`loader` calls `read_headers` and then `read_tensor`. Files are read, not mapped: a mapped file that
someone shortens kills the process, and its pages would count as the process's memory.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from worker.errors import CheckpointError
from worker.model.checkpoint import ITEM_BYTES, TensorSpec

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own bound
DTYPES = {
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I8": torch.int8,
}


@dataclass(frozen=True, slots=True)
class Extent:
    """A tensor's bytes: `offset_bytes` from the start of the file, row-major, without gaps."""

    path: Path
    offset_bytes: int
    spec: TensorSpec

    def matrix(self, first_row: int, rows: int) -> "Extent":
        """`rows` rows of the last dimension, counted over all leading dimensions."""
        columns = self.spec.shape[-1]
        part = TensorSpec(self.spec.dtype, (rows, columns))
        skipped = first_row * columns * ITEM_BYTES[self.spec.dtype]
        return replace(self, offset_bytes=self.offset_bytes + skipped, spec=part)


def read_tensor(extent: Extent) -> torch.Tensor:
    """The tensor, in memory of its own. Raises OSError if the file has become shorter."""
    content = bytearray(extent.spec.nbytes)
    view = memoryview(content)
    with extent.path.open("rb", buffering=0) as file:
        file.seek(extent.offset_bytes)
        while view:
            count = file.readinto(view)
            if not count:
                raise OSError(f"{extent.path.name} ended early")
            view = view[count:]
    return torch.frombuffer(content, dtype=DTYPES[extent.spec.dtype]).view(extent.spec.shape)


def read_headers(root: Path) -> tuple[dict[str, Extent], list[str]]:
    """Every tensor that the index lists or a shard holds, and what is wrong with the shards.
    Raises CheckpointError if there is neither a usable index nor a single file."""
    single = not (root / INDEX).exists() and (root / SINGLE).exists()
    weight_map = {} if single else _weight_map(root)
    found: dict[str, Extent] = {}
    problems: list[str] = []
    for file in [SINGLE] if single else sorted(set(weight_map.values())):
        try:
            header = read_header(root / file)
        except CheckpointError as error:
            problems += error.problems
            continue
        if not single:
            problems += [
                f"{name}: in {file}, but the index says {weight_map.get(name)}"
                for name in header
                if weight_map.get(name) != file
            ]
        found |= header
    return found, problems


def read_header(path: Path) -> dict[str, Extent]:
    """The tensors of one safetensors file. Raises CheckpointError if the file is absent, truncated
    or not safetensors, or names each tensor whose place in the file makes no sense."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT_BYTES, size_bytes - 8):
                raise ValueError("header length out of range")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        header.pop("__metadata__", None)
        entries = {name: _entry(name, entry) for name, entry in header.items()}
        end = max((stop for _, _, stop in entries.values()), default=0)
        if 8 + length + end != size_bytes:
            promised = 8 + length + end
            raise ValueError(f"{size_bytes} bytes on disk, {promised} promised by the header")
    except (OSError, ValueError) as error:
        problem = f"{path.name}: not a whole safetensors file: {error}"
        raise CheckpointError(f"{path.parent}: unreadable shard", [problem]) from error
    problems = _span_problems(path.name, entries)
    if problems:
        raise CheckpointError(f"{path.parent}: unreadable shard", problems)
    return {n: Extent(path, 8 + length + start, spec) for n, (spec, start, _) in entries.items()}


def _entry(name: str, raw: object) -> tuple[TensorSpec, int, int]:
    """A header entry's storage, first byte and end. Raises ValueError."""
    match raw:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop]}:
            if all(type(size) is int and size >= 0 for size in (*shape, start, stop)):
                return TensorSpec(dtype, tuple(shape)), start, stop
    raise ValueError(f"{name} has no usable dtype, shape and data_offsets")


def _span_problems(file: str, entries: dict[str, tuple[TensorSpec, int, int]]) -> list[str]:
    """Spans must follow each other without gap or overlap, each as long as its shape says."""
    problems: list[str] = []
    expected_start = 0
    for name, (spec, start, stop) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if start != expected_start:
            problems.append(f"{name}: starts at byte {start} of {file}, expected {expected_start}")
        if spec.dtype in ITEM_BYTES and stop - start != spec.nbytes:
            problems.append(f"{name}: {stop - start} bytes in {file}, expected {spec.nbytes}")
        expected_start = stop
    return problems


def _weight_map(root: Path) -> dict[str, str]:
    try:
        weight_map = json.loads((root / INDEX).read_text(encoding="utf-8"))["weight_map"]
        texts = all(isinstance(file, str) for file in weight_map.values())
        if not texts or any(Path(file).name != file for file in set(weight_map.values())):
            raise ValueError("weight_map values must be file names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{root}: unreadable {INDEX}", [str(error)]) from error
    return dict(weight_map)
