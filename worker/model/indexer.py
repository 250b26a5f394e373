"""CSA's lightning indexer: which compressed entries each token attends to."""

import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.kernels.load import KernelBackend
from worker.model.compressor import Compressor
from worker.model.layer_cache import EntryCache
from worker.model.linear import Linear
from worker.model.loader import Weights
from worker.model.numerics import Numerics
from worker.model.ragged import QueryTile, RaggedBatch


class Indexer:
    """Keys from its own small `compressor`, queries from the attention's low-rank latent."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: ModelConfig,
        numerics: Numerics,
        kernels: KernelBackend,
    ) -> None:
        rounding = "index" if numerics.quantise else "none"
        self.compressor = Compressor(
            weights, f"{prefix}compressor.", CSA_RATIO, config, rounding, kernels
        )
        quantised = kernels if numerics.quantise else None
        self.wq_b = Linear(weights[f"{prefix}wq_b.weight"], quantised)
        self.weights_proj = Linear(weights[f"{prefix}weights_proj.weight"], None)
        self.heads = config.index_n_heads
        self.top = config.index_topk
        self.scale = config.index_head_dim**-0.5 * config.index_n_heads**-0.5
        self.quantise = numerics.quantise
        self.kernels = kernels

    def queries(
        self, x: torch.Tensor, latent: torch.Tensor, angles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries [T, H, D] and head weights [T, H] of all tokens."""
        query = self.wq_b(latent).view(len(x), self.heads, -1)
        self.kernels.rotate_(query, angles)
        if self.quantise:
            query = self.kernels.quantise_index(query)
        return query, self.weights_proj(x).float() * self.scale

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        batch: RaggedBatch,
        tile: QueryTile,
        cache: EntryCache,
    ) -> torch.Tensor:
        """Entry numbers [rows, K] for one tile, ascending; -1 is absent."""
        visible = batch.emissions[CSA_RATIO].visible[tile.rows]
        sequences = tile.sequences.stop - tile.sequences.start
        return self.kernels.index_top(
            torch.unflatten(query[tile.rows], 0, (sequences, -1)),
            torch.unflatten(weights[tile.rows], 0, (sequences, -1)),
            cache.pages,
            batch.block_table[tile.sequences],
            visible,
            tile.positions_stop // CSA_RATIO,
            self.top,
        )
