"""Bytes of a V4 checkpoint, tensor by tensor, and each GPU's part of them.

The list of tensors is that of the official checkpoint; it adds up to its published size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import ceil
from typing import Literal

from controlplane.planner.geometry import CSA_RATIO, Geometry

Parallelism = Literal["tensor", "pipeline", "expert"]
GIB = 2**30


class Form(StrEnum):
    """How engines keep weights in memory."""

    NATIVE = "native"  # as published: FP4 experts, FP8 dense layers
    BFLOAT16 = "bfloat16"  # everything quantised widened to two bytes


class Storage(StrEnum):
    """How the official checkpoint stores a tensor."""

    FP4 = "fp4"  # two numbers a byte, and a byte of scale for 32
    FP8 = "fp8"  # a byte, and a byte of scale for a block of 128 x 128
    BF16 = "bf16"
    F32 = "f32"
    I64 = "i64"  # tables, no parameters


class Split(StrEnum):
    """What parallelism does to a tensor."""

    EXPERT = "expert"  # divided by tensor and by expert parallelism
    HEADS = "heads"  # divided by tensor parallelism
    NONE = "none"  # whole on every GPU, for there is one KV head


@dataclass(frozen=True)
class Tensor:
    """`count` matrices of one shape. Vectors have one row."""

    storage: Storage
    split: Split
    rows: int
    columns: int = 1
    count: int = 1

    def bytes(self, form: Form) -> int:
        """Bytes of all of them in memory."""
        elements = self.rows * self.columns
        if self.storage is Storage.I64:
            each = 8 * elements
        elif self.storage is Storage.F32:
            each = 4 * elements
        elif form is Form.BFLOAT16 or self.storage is Storage.BF16:
            each = 2 * elements
        elif self.storage is Storage.FP8:
            each = elements + ceil(self.rows / 128) * ceil(self.columns / 128)
        else:
            each = elements // 2 + self.rows * ceil(self.columns / 32)
        return each * self.count


def tensors(geometry: Geometry, *, mtp: bool = True) -> Iterator[Tensor]:
    """Yield every tensor, those of multi-token prediction only if `mtp`."""
    g = geometry
    yield Tensor(Storage.BF16, Split.HEADS, g.vocab_size, g.hidden_size, 2)  # embedding, head
    yield Tensor(Storage.BF16, Split.NONE, g.hidden_size)
    yield from _stream_head(g)
    for index, ratio in enumerate(g.ratios):
        yield from _layer(g, ratio, hashed=index < g.hash_layers)
    for _ in range(g.mtp_layers if mtp else 0):
        yield from _layer(g, 0, hashed=False)
        yield from _stream_head(g)
        yield Tensor(Storage.FP8, Split.HEADS, g.hidden_size, g.hidden_size, 2)
        yield Tensor(Storage.BF16, Split.NONE, g.hidden_size, count=3)


def _layer(g: Geometry, ratio: int, *, hashed: bool) -> Iterator[Tensor]:
    yield from _attention(g)
    if ratio:
        overlap = 2 if ratio == CSA_RATIO else 1
        yield from _compressor(g, ratio, g.head_dim, overlap)
    if ratio == CSA_RATIO:
        yield from _compressor(g, ratio, g.index_dim, 2)
        yield Tensor(Storage.BF16, Split.NONE, g.index_heads, g.hidden_size)
        yield Tensor(Storage.FP8, Split.NONE, g.index_heads * g.index_dim, g.q_lora_rank)
    yield from _experts(g, hashed=hashed)
    # Two sublayers mix the residual streams: pre, post and a square of them.
    mixes = g.streams * (2 + g.streams)
    yield Tensor(Storage.F32, Split.NONE, mixes, g.streams * g.hidden_size, 2)
    yield Tensor(Storage.F32, Split.NONE, mixes + 3, count=2)


def _attention(g: Geometry) -> Iterator[Tensor]:
    across_heads, output = g.heads * g.head_dim, g.o_groups * g.o_lora_rank
    yield Tensor(Storage.BF16, Split.NONE, g.hidden_size, count=2)
    yield Tensor(Storage.BF16, Split.NONE, g.q_lora_rank + g.head_dim)
    yield Tensor(Storage.FP8, Split.NONE, g.q_lora_rank, g.hidden_size)
    yield Tensor(Storage.FP8, Split.HEADS, across_heads, g.q_lora_rank)
    yield Tensor(Storage.FP8, Split.NONE, g.head_dim, g.hidden_size)
    yield Tensor(Storage.FP8, Split.HEADS, output, across_heads // g.o_groups)
    yield Tensor(Storage.FP8, Split.HEADS, g.hidden_size, output)
    yield Tensor(Storage.F32, Split.HEADS, g.heads)


def _compressor(g: Geometry, ratio: int, width: int, overlap: int) -> Iterator[Tensor]:
    yield Tensor(Storage.BF16, Split.NONE, overlap * width, g.hidden_size, 2)
    yield Tensor(Storage.BF16, Split.NONE, width)
    yield Tensor(Storage.F32, Split.NONE, ratio, overlap * width)


def _experts(g: Geometry, *, hashed: bool) -> Iterator[Tensor]:
    wide, narrow = g.hidden_size, g.expert_width
    yield Tensor(Storage.FP4, Split.EXPERT, narrow, wide, 2 * g.experts)
    yield Tensor(Storage.FP4, Split.EXPERT, wide, narrow, g.experts)
    yield Tensor(Storage.FP8, Split.HEADS, narrow, wide, 2)
    yield Tensor(Storage.FP8, Split.HEADS, wide, narrow)
    yield Tensor(Storage.BF16, Split.NONE, g.experts, wide)
    if hashed:
        yield Tensor(Storage.I64, Split.NONE, g.vocab_size, g.experts_per_token)
    else:
        yield Tensor(Storage.F32, Split.NONE, g.experts)


def _stream_head(g: Geometry) -> Iterator[Tensor]:
    yield Tensor(Storage.F32, Split.NONE, g.streams, g.streams * g.hidden_size)
    yield Tensor(Storage.F32, Split.NONE, g.streams + 1)


@lru_cache(maxsize=256)
def total_bytes(geometry: Geometry, form: Form = Form.NATIVE, *, mtp: bool = True) -> int:
    """Return the bytes of all weights."""
    return sum(tensor.bytes(form) for tensor in tensors(geometry, mtp=mtp))


def parameters(geometry: Geometry, *, mtp: bool = True) -> int:
    """Return the number of trained numbers; scales and tables are none."""
    return sum(
        tensor.rows * tensor.columns * tensor.count
        for tensor in tensors(geometry, mtp=mtp)
        if tensor.storage is not Storage.I64
    )


def active_parameters(geometry: Geometry) -> int:
    """Return how many numbers of the main layers one token multiplies with."""
    g = geometry
    routed = sum(
        tensor.rows * tensor.columns * tensor.count
        for tensor in tensors(g, mtp=False)
        if tensor.split is Split.EXPERT
    )
    embedding = g.vocab_size * g.hidden_size  # looked up, not multiplied
    chosen = routed // g.experts * g.experts_per_token
    return parameters(g, mtp=False) - routed + chosen - embedding


@lru_cache(maxsize=256)
def bytes_per_gpu(
    geometry: Geometry,
    parallelism: Parallelism,
    gpus: int,
    *,
    form: Form = Form.NATIVE,
    mtp: bool = True,
) -> int:
    """Return the weights that the fullest of `gpus` GPUs holds, in bytes.

    Expert parallelism divides the routed experts and replicates the rest; tensor parallelism
    divides what has heads or experts; a pipeline stage holds whole layers, so that the remainder
    counts.
    """
    if parallelism == "pipeline":
        stage_layers = ceil(geometry.layers / gpus)
        return ceil(total_bytes(geometry, form, mtp=mtp) * stage_layers / geometry.layers)
    divided = {Split.EXPERT} if parallelism == "expert" else {Split.EXPERT, Split.HEADS}
    return sum(
        ceil(tensor.bytes(form) / (gpus if tensor.split in divided else 1))
        for tensor in tensors(geometry, mtp=mtp)
    )
