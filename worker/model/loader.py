"""Reads a checkpoint: checks every header first, then dequantises to a compute dtype.

`ModelRunner` calls `load_weights`, `worker.runner.inspection` calls `open_checkpoint`. A checkpoint
that differs in any way from what config.json promises is refused with one `CheckpointError` that
lists every difference, before any tensor data is read. MTP tensors are always checked, and loaded
only for a runner that drafts.
"""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.config import ModelConfig
from worker.errors import CheckpointError, ConfigError
from worker.model.checkpoint import (
    ROUTED_EXPERT,
    Form,
    Naming,
    TensorSpec,
    Variant,
    expected_tensors,
)
from worker.model.progress import reported
from worker.model.quantization import dequantise_fp4, dequantise_fp8
from worker.model.shards import Extent, read_headers, read_tensor
from worker.model.transformers_names import official_extents, stored_table
from worker.model.variant import detect

READERS = 8  # threads that read and dequantise; each holds one tensor beside the results

# BF16 on disk, but multiplied in float32 whatever the compute dtype.
FLOAT32_SUFFIXES = (
    "norm.weight",
    "gate.weight",
    "compressor.wkv.weight",
    "compressor.wgate.weight",
    "head.weight",
)
DEQUANTISE = {"F8_E4M3": dequantise_fp8, "I8": dequantise_fp4}

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose headers are as they should be. `table` and `extents` go by official name,
    whatever the names of the `stored_tensors` on disk."""

    root: Path
    variant: Variant
    table: dict[str, TensorSpec]
    extents: dict[str, Extent]
    stored_tensors: int

    def loaded(self, experts: range | None = None, *, mtp: bool = False) -> Iterator[str]:
        """Names of the tensors that `load_weights` returns; `experts` keeps only these of the
        routed experts, `mtp` adds the multi-token-prediction block."""
        for name in self.table:
            if name.endswith(".scale") or (name.startswith("mtp.") and not mtp):
                continue
            routed = ROUTED_EXPERT.fullmatch(name)
            if experts is None or routed is None or int(routed[2]) in experts:
                yield name

    def require_mtp(self, config: ModelConfig) -> None:
        """Raises ConfigError unless there is exactly one multi-token-prediction block: a chain of
        several would have to be told apart from one that is called several times."""
        blocks = config.num_nextn_predict_layers if self.variant.mtp else 0
        if blocks != 1:
            raise ConfigError(
                f"{self.root} has {blocks or 'no'} multi-token-prediction blocks, and drafting "
                "needs one; serve it with --draft-tokens 0"
            )


def load_weights(
    directory: str | Path,
    config: ModelConfig,
    compute: torch.dtype,
    device: str = "cpu",
    *,
    experts: range | None = None,
    mtp: bool = False,
    show_progress: bool = True,
) -> Weights:
    """Every tensor that the forward pass uses, by official name, dequantised; scales are folded
    in and dropped. `experts` leaves the routed experts of other ranks unread; `mtp` adds the
    multi-token-prediction block. `show_progress`: of several ranks that load at once, one tells.

    Host memory at its peak is the result and a few single tensors. Raises CheckpointError;
    ConfigError if there is no such block.
    """
    checkpoint = open_checkpoint(Path(directory), config)
    if mtp:
        checkpoint.require_mtp(config)
    names = list(checkpoint.loaded(experts, mtp=mtp))
    weights = _allocate(checkpoint, names, compute, device)

    def load(name: str) -> str | None:
        tensor = _dequantised(checkpoint, name)
        weights[name].copy_(tensor)
        return _value_problem(name, tensor, config)

    problems: list[str] = []
    total_bytes = sum(checkpoint.extents[name].spec.nbytes for name in names)
    try:
        with _readers() as pool, reported(total_bytes, shown=show_progress) as advance:
            for name, problem in zip(names, pool.map(load, names), strict=True):
                if problem is not None:
                    problems.append(problem)
                advance(checkpoint.extents[name].spec.nbytes)
    except OSError as error:
        raise CheckpointError(f"{checkpoint.root}: unreadable shard", [str(error)]) from error
    if problems:
        raise CheckpointError(f"{checkpoint.root}: corrupt tensor values", problems)
    return weights


def stacked_experts(
    weights: Weights, prefix: str, experts: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the loaded experts of the layer whose names begin with `prefix` out of `weights`: gate
    over up projections [experts, 2I, D] and down projections [experts, D, I]. No copies: so they
    were laid out."""

    def take(matrix: str) -> list[torch.Tensor]:
        return [weights.pop(f"{prefix}experts.{e}.{matrix}.weight") for e in experts]

    gate, down, up = take("w1"), take("w2"), take("w3")
    inner, width = gate[0].shape
    gate_up = gate[0].as_strided((len(experts), 2 * inner, width), (2 * inner * width, width, 1))
    assert up[-1].data_ptr() == gate_up[-1, inner].data_ptr()
    return gate_up, down[0].as_strided((len(experts), width, inner), (width * inner, inner, 1))


def open_checkpoint(root: Path, config: ModelConfig) -> Checkpoint:
    """Tell the variant from the headers and compare each with its table. Raises CheckpointError
    naming each missing, unexpected, misplaced or malformed tensor and file."""
    found, problems = read_headers(root)
    variant = detect({name: extent.spec for name, extent in found.items()}, config)
    table = expected_tensors(config, variant)
    renamed = variant.naming is Naming.TRANSFORMERS
    stored = stored_table(table) if renamed else table
    if not problems:  # of an unreadable file every tensor would be missing
        problems += [f"{name}: missing" for name in stored if name not in found]
        problems += [f"{name}: unexpected" for name in found if name not in stored]
    for name in stored.keys() & found.keys():
        if not _agrees(found[name].spec, stored[name], variant):
            problems.append(f"{name}: {_text(found[name].spec)}, expected {_text(stored[name])}")
    if problems:
        raise CheckpointError(f"{root}: the checkpoint does not match config.json", problems)
    extents = official_extents(table, found) if renamed else found
    return Checkpoint(root, variant, table, extents, len(found))


def loaded_dtype(name: str, spec: TensorSpec, compute: torch.dtype) -> torch.dtype:
    """The dtype that a tensor of this table entry has after loading."""
    if spec.dtype == "I64":
        return torch.int64
    wide = spec.dtype == "F32" or name.endswith(FLOAT32_SUFFIXES)
    return torch.float32 if wide else compute


def _agrees(found: TensorSpec, expected: TensorSpec, variant: Variant) -> bool:
    """Unquantised checkpoints are written whole in one of the two float dtypes, or in both."""
    if found == expected:
        return True
    plain = {"BF16", "F32"}
    return (
        variant.dense is Form.UNQUANTISED
        and found.shape == expected.shape
        and {found.dtype, expected.dtype} <= plain
    )


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that forget what they have not begun when an error or Ctrl-C ends the load."""
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="load")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _allocate(
    checkpoint: Checkpoint, names: Iterable[str], compute: torch.dtype, device: str
) -> Weights:
    """Uninitialised memory for the whole result. It comes before anything is read: allocated
    between a reader's temporaries it would leave the heap in pieces. A layer's experts lie as
    `stacked_experts` takes them."""
    weights: Weights = {}
    experts: dict[tuple[str, str], list[str]] = {}  # names by layer and matrix
    for name in names:
        routed = ROUTED_EXPERT.fullmatch(name)
        if routed:
            experts.setdefault((routed[1], routed[3]), []).append(name)
            continue
        spec = checkpoint.table[name]
        dtype = loaded_dtype(name, spec, compute)
        weights[name] = torch.empty(spec.unpacked_shape, dtype=dtype, device=device)
    for (layer, matrix), members in experts.items():
        width, inner = checkpoint.table[members[0]].unpacked_shape
        if matrix == "w2":
            down = torch.empty((len(members), width, inner), dtype=compute, device=device)
            weights.update(zip(members, down, strict=True))
        elif matrix == "w1":
            inner, width = width, inner
            gate_up = torch.empty((len(members), 2, inner, width), dtype=compute, device=device)
            weights.update(zip(members, gate_up[:, 0], strict=True))
            weights.update(zip(experts[layer, "w3"], gate_up[:, 1], strict=True))
    return weights


def _dequantised(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    extent = checkpoint.extents[name]
    tensor = read_tensor(extent)
    convert = DEQUANTISE.get(extent.spec.dtype)
    if convert is None:
        return tensor
    return convert(tensor, read_tensor(checkpoint.extents[name.removesuffix("weight") + "scale"]))


def _value_problem(name: str, tensor: torch.Tensor, config: ModelConfig) -> str | None:
    low, high = torch.aminmax(tensor)  # NaN and infinities reach the extremes
    if name.endswith(".tid2eid"):
        if int(low) < 0 or int(high) >= config.n_routed_experts:
            last = config.n_routed_experts - 1
            return f"{name}: expert ids {int(low)}..{int(high)} outside 0..{last}"
        return None
    finite = math.isfinite(low.item()) and math.isfinite(high.item())
    return None if finite else f"{name}: values that are not finite"


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"
