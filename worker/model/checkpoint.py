"""The checkpoint format: every tensor's name, dtype and shape for a given geometry.

One table, used by the reader (`loader`), by the writer (`tiny`) and by `worker.runner.inspection`,
so they cannot disagree. dtypes are safetensors' names; `I8` holds two FP4 e2m1 codes per byte, low
nibble first.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from worker.config import CSA_RATIO, ModelConfig

FP8_BLOCK = 128  # weights: one E8M0 scale per 128 x 128 block
FP4_BLOCK = 32  # experts: one E8M0 scale per 32 inputs of a row
ITEM_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I64": 8, "I8": 1}
ROUTED_EXPERT = re.compile(
    r"((?:layers|mtp)\.\d+\.ffn\.experts)\.(\d+)\.(w[123])\.(?:weight|scale)"
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's storage: safetensors dtype name and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size on disk. Raises KeyError for a dtype that no checkpoint here has."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def unpacked_shape(self) -> tuple[int, ...]:
        """The shape once two FP4 numbers no longer share a byte."""
        return (*self.shape[:-1], 2 * self.shape[-1]) if self.dtype == "I8" else self.shape


class Form(StrEnum):
    """How a matrix is stored. Every form but `fp8-float-scales` is exact in bfloat16."""

    FP4 = "fp4"  # packed e2m1, E8M0 scales of 1 x 32
    FP8 = "fp8"  # e4m3, E8M0 scales of 128 x 128
    FP8_FLOAT_SCALES = "fp8-float-scales"  # e4m3, float32 scales of 128 x 128
    UNQUANTISED = "unquantised"  # bfloat16 or float32


class Naming(StrEnum):
    """Whose tensor names a checkpoint uses."""

    OFFICIAL = "official"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class Variant:
    """The storage of one checkpoint: its names, the form of its dense layers and of its routed
    experts, and whether multi-token-prediction blocks are there."""

    naming: Naming = Naming.OFFICIAL
    dense: Form = Form.FP8
    experts: Form = Form.FP4
    mtp: bool = True


OFFICIAL = Variant()
Table = Iterator[tuple[str, TensorSpec]]


def expected_tensors(config: ModelConfig, variant: Variant = OFFICIAL) -> dict[str, TensorSpec]:
    """Every tensor of the checkpoint by its official name, in a stable order."""
    table = dict(_top(config))
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}."
        table.update(_block(prefix, config, variant, layer))
    for head in range(config.num_nextn_predict_layers if variant.mtp else 0):
        prefix = f"mtp.{head}."
        table.update(_block(prefix, config, variant, config.num_hidden_layers + head))
        table.update(_mtp(prefix, config, variant))
    return table


def _top(c: ModelConfig) -> Table:
    yield "embed.weight", TensorSpec("BF16", (c.vocab_size, c.hidden_size))
    yield "head.weight", TensorSpec("BF16", (c.vocab_size, c.hidden_size))
    yield "norm.weight", TensorSpec("BF16", (c.hidden_size,))
    yield from _hc_head("", c)


def _hc_head(prefix: str, c: ModelConfig) -> Table:
    yield f"{prefix}hc_head_fn", TensorSpec("F32", (c.hc_mult, c.hc_mult * c.hidden_size))
    yield f"{prefix}hc_head_base", TensorSpec("F32", (c.hc_mult,))
    yield f"{prefix}hc_head_scale", TensorSpec("F32", (1,))


def _mtp(prefix: str, c: ModelConfig, variant: Variant) -> Table:
    for name in ("enorm", "hnorm", "norm"):
        yield f"{prefix}{name}.weight", TensorSpec("BF16", (c.hidden_size,))
    for name in ("e_proj", "h_proj"):
        yield from _matrix(f"{prefix}{name}", variant.dense, c.hidden_size, c.hidden_size)
    yield from _hc_head(prefix, c)


def _block(prefix: str, c: ModelConfig, variant: Variant, layer: int) -> Table:
    for name in ("attn_norm", "ffn_norm"):
        yield f"{prefix}{name}.weight", TensorSpec("BF16", (c.hidden_size,))
    mixes = (2 + c.hc_mult) * c.hc_mult
    for part in ("attn", "ffn"):
        name = f"{prefix}hc_{part}_"
        yield f"{name}fn", TensorSpec("F32", (mixes, c.hc_mult * c.hidden_size))
        yield f"{name}base", TensorSpec("F32", (mixes,))
        yield f"{name}scale", TensorSpec("F32", (3,))
    yield from _attention(f"{prefix}attn.", c, variant.dense, c.compress_ratios[layer])
    yield from _experts(f"{prefix}ffn.", c, variant, layer)


def _attention(prefix: str, c: ModelConfig, dense: Form, ratio: int) -> Table:
    heads_dim = c.num_attention_heads * c.head_dim
    yield from _matrix(f"{prefix}wq_a", dense, c.q_lora_rank, c.hidden_size)
    yield from _matrix(f"{prefix}wq_b", dense, heads_dim, c.q_lora_rank)
    yield from _matrix(f"{prefix}wkv", dense, c.head_dim, c.hidden_size)
    yield from _matrix(f"{prefix}wo_a", dense, c.o_groups * c.o_lora_rank, heads_dim // c.o_groups)
    yield from _matrix(f"{prefix}wo_b", dense, c.hidden_size, c.o_groups * c.o_lora_rank)
    yield f"{prefix}q_norm.weight", TensorSpec("BF16", (c.q_lora_rank,))
    yield f"{prefix}kv_norm.weight", TensorSpec("BF16", (c.head_dim,))
    yield f"{prefix}attn_sink", TensorSpec("F32", (c.num_attention_heads,))
    if ratio:
        yield from _compressor(f"{prefix}compressor.", c, ratio, c.head_dim)
    if ratio == CSA_RATIO:
        indexer = f"{prefix}indexer."
        yield from _compressor(f"{indexer}compressor.", c, ratio, c.index_head_dim)
        rows = c.index_n_heads * c.index_head_dim
        yield from _matrix(f"{indexer}wq_b", dense, rows, c.q_lora_rank)
        shape = (c.index_n_heads, c.hidden_size)
        yield f"{indexer}weights_proj.weight", TensorSpec("BF16", shape)


def _compressor(prefix: str, c: ModelConfig, ratio: int, dim: int) -> Table:
    width = 2 * dim if ratio == CSA_RATIO else dim
    for name in ("wkv", "wgate"):
        yield f"{prefix}{name}.weight", TensorSpec("BF16", (width, c.hidden_size))
    yield f"{prefix}norm.weight", TensorSpec("BF16", (dim,))
    yield f"{prefix}ape", TensorSpec("F32", (ratio, width))


def _experts(prefix: str, c: ModelConfig, variant: Variant, layer: int) -> Table:
    yield f"{prefix}gate.weight", TensorSpec("BF16", (c.n_routed_experts, c.hidden_size))
    if layer < c.num_hash_layers:
        yield f"{prefix}gate.tid2eid", TensorSpec("I64", (c.vocab_size, c.num_experts_per_tok))
    else:
        yield f"{prefix}gate.bias", TensorSpec("F32", (c.n_routed_experts,))
    inner = c.moe_intermediate_size
    shapes = {
        "w1": (inner, c.hidden_size),
        "w2": (c.hidden_size, inner),
        "w3": (inner, c.hidden_size),
    }
    for name, shape in shapes.items():
        yield from _matrix(f"{prefix}shared_experts.{name}", variant.dense, *shape)
    for expert in range(c.n_routed_experts):
        for name, shape in shapes.items():
            yield from _matrix(f"{prefix}experts.{expert}.{name}", variant.experts, *shape)


def _matrix(name: str, form: Form, rows: int, columns: int) -> Table:
    """A matrix [rows, columns] in this form, with its scales."""
    if form is Form.UNQUANTISED:
        yield f"{name}.weight", TensorSpec("BF16", (rows, columns))
    elif form is Form.FP4:
        yield f"{name}.weight", TensorSpec("I8", (rows, columns // 2))
        yield f"{name}.scale", TensorSpec("F8_E8M0", (rows, columns // FP4_BLOCK))
    else:
        yield f"{name}.weight", TensorSpec("F8_E4M3", (rows, columns))
        blocks = (-(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
        dtype = "F8_E8M0" if form is Form.FP8 else "F32"
        yield f"{name}.scale", TensorSpec(dtype, blocks)
