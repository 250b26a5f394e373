"""Pools every `ratio` tokens into one cache entry (CSA, HCA, and the indexer's own keys).

Projections of unfinished entries' tokens stay in a ring per state slot, so a chunk may end at any
position. Arithmetic is float32 throughout, whatever the compute dtype.
"""

import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.kernels.dense import product
from worker.kernels.load import KernelBackend
from worker.model.layer_cache import EntryCache
from worker.model.loader import Weights
from worker.model.ragged import Emission, RaggedBatch


class Compressor:
    """`prefix` names its tensors; entries are [dim] wide."""

    def __init__(
        self, weights: Weights, prefix: str, ratio: int, config: ModelConfig, kernels: KernelBackend
    ) -> None:
        self.projection = torch.cat(
            (weights[f"{prefix}wkv.weight"], weights[f"{prefix}wgate.weight"])
        )  # [2W, D]: values, then scores
        self.position_bias = weights[f"{prefix}ape"]  # [ratio, W]
        self.norm = weights[f"{prefix}norm.weight"]  # [dim]
        self.ratio = ratio
        self.norm_eps = config.rms_norm_eps
        self.kernels = kernels

    def __call__(
        self, x: torch.Tensor, batch: RaggedBatch, angles: torch.Tensor, cache: EntryCache
    ) -> torch.Tensor:
        """Take in x [T, D] and return the finished entries [E, dim] float32, normalised and
        rotated; the caller rounds and stores them. `angles` belong to the entries' positions."""
        emission = batch.emissions[self.ratio]
        rows = product(x.float(), self.projection).view(len(x), 2, -1)  # [T, 2, W]
        rows[:, 1] += self.position_bias[batch.positions % self.ratio]
        entries = self._finish(rows, batch, emission, angles, cache.tail)
        cache.tail.flatten(0, 1)[emission.tail.kept_at] = rows[emission.tail.kept_rows]
        return entries

    def _finish(
        self,
        rows: torch.Tensor,
        batch: RaggedBatch,
        emission: Emission,
        angles: torch.Tensor,
        tail: torch.Tensor,
    ) -> torch.Tensor:
        if len(emission.rows) == 0:
            return rows.new_zeros(0, len(self.norm))
        values = rows.new_zeros(1, 1, rows.shape[2])
        absent = torch.cat((values, values - torch.inf), 1)  # [1, 2, W]: a score of no weight
        recent = tail.index_select(0, batch.slots).flatten(0, 1)  # [S * R, 2, W]
        source = torch.cat((rows, recent, absent))
        gathered = source.index_select(0, emission.rows.flatten())
        gathered = gathered.view(*emission.rows.shape, *rows.shape[1:])  # [E, n, 2, W]
        if self.ratio == CSA_RATIO:
            dim = len(self.norm)
            previous, own = gathered[:, : self.ratio, :, :dim], gathered[:, self.ratio :, :, dim:]
            gathered = torch.cat((previous, own), 1)
        entries = self.kernels.rms_norm(
            self.kernels.pool_entries(gathered), self.norm, self.norm_eps
        )
        self.kernels.rotate_(entries, angles)
        return entries
