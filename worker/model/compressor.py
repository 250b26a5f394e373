"""Pools every `ratio` tokens into one cache entry (CSA, HCA, and the indexer's own keys).

Projections of unfinished entries' tokens stay in a ring per state slot, so a chunk may end at any
position. Arithmetic is float32 throughout, whatever the compute dtype.
"""

import torch

from worker.config import ModelConfig
from worker.kernels.dense import product
from worker.kernels.load import KernelBackend
from worker.model.layer_cache import EntryCache
from worker.model.loader import Weights
from worker.model.ragged import RaggedBatch


class Compressor:
    """`prefix` names its tensors; entries are [dim] wide, and stored after the `rounding` that
    `compress_entries` knows by name."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        ratio: int,
        config: ModelConfig,
        rounding: str,
        kernels: KernelBackend,
    ) -> None:
        self.projection = torch.cat(
            (weights[f"{prefix}wkv.weight"], weights[f"{prefix}wgate.weight"])
        )  # [2W, D]: values, then scores
        self.position_bias = weights[f"{prefix}ape"]  # [ratio, W]
        self.norm = weights[f"{prefix}norm.weight"]  # [dim]
        self.ratio = ratio
        self.norm_eps = config.rms_norm_eps
        self.rounding = rounding
        self.kernels = kernels

    def __call__(
        self, x: torch.Tensor, batch: RaggedBatch, angles: torch.Tensor, cache: EntryCache
    ) -> None:
        """Take in x [T, D] and store the entries it finishes in `cache.pages`. `angles` [E, r]
        belong to the entries' positions."""
        emission = batch.emissions[self.ratio]
        rows = product(x.float(), self.projection).view(len(x), 2, -1)  # [T, 2, W]
        self.kernels.compress_entries(
            rows,
            cache.tail,
            batch.slots,
            emission.rows,
            self.position_bias,
            self.norm,
            angles,
            cache.pages,
            emission.stored_at,
            eps=self.norm_eps,
            rounding=self.rounding,
        )
        cache.tail.flatten(0, 1)[emission.tail.kept_at] = rows[emission.tail.kept_rows]
