"""Bytes of cache: what a token and a sequence take, derived by adding up what each layer stores.

A layer keeps a window of `Geometry.window` entries whatever the length; a layer of ratio r one
entry for every r tokens beside it, and where r is 4 an index key too. Its compressor keeps the
tokens that are not pooled yet, in float32.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal

from controlplane.planner.geometry import CSA_RATIO, Geometry

KVFormat = Literal["auto", "fp8"]
PAGE_TOKENS = 256  # of our engine; a page holds whole entries of both ratios
_SCALE_GROUP = 64  # channels that share a scale of one byte; scales are padded to eight
_FLOAT32 = 4


@dataclass(frozen=True)
class CacheSize:
    """Bytes of cache of one copy, that is of one GPU that holds all layers.

    Attributes:
        per_token: grows with the length.
        per_sequence: is taken at any length.
        per_snapshot: a kept prefix's state, beside its tokens.
        derived: from the geometry; otherwise an engine has measured it.
    """

    per_token: float
    per_sequence: int
    per_snapshot: int
    derived: bool = True

    def sequence_bytes(self, tokens: int) -> float:
        """Bytes of one sequence of `tokens` tokens."""
        return self.per_token * tokens + self.per_sequence


@lru_cache(maxsize=256)
def cache_size(geometry: Geometry, kv_format: KVFormat) -> CacheSize:
    """Return what a cache in bfloat16 (auto) or FP8 takes."""
    g = geometry
    entry, key = _entry_bytes(g, kv_format), _index_key_bytes(g, kv_format)
    per_token, tails, overlaps = 0.0, 0, 0
    for ratio in g.ratios:
        if ratio == CSA_RATIO:
            per_token += (entry + key) / ratio
            # Two groups of doubled width, numbers and scores, of the layer and of its indexer.
            tails += 2 * ratio * 2 * 2 * (g.head_dim + g.index_dim) * _FLOAT32
            overlaps += ratio * 2 * (g.head_dim + g.index_dim) * _FLOAT32
        elif ratio:
            per_token += entry / ratio
            tails += ratio * 2 * g.head_dim * _FLOAT32
    windows = g.layers * g.window * entry
    return CacheSize(per_token, windows + tails, windows + overlaps)


def _entry_bytes(g: Geometry, kv_format: KVFormat) -> int:
    if kv_format == "auto":
        return 2 * g.head_dim
    plain = g.head_dim - g.rope_dim  # rotated channels stay in bfloat16
    scales = ceil(ceil(plain / _SCALE_GROUP) / 8) * 8
    return plain + 2 * g.rope_dim + scales


def _index_key_bytes(g: Geometry, kv_format: KVFormat) -> int:
    return 2 * g.index_dim if kv_format == "auto" else g.index_dim + _FLOAT32
