"""V4 attention: one key-value vector per token, seen through a sliding window, and compressed
entries beyond it. Layers without a ratio have the window alone."""

import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.kernels.entry_pool import EntryPool
from worker.kernels.load import KernelBackend
from worker.model.compressor import Compressor
from worker.model.indexer import Indexer
from worker.model.layer_cache import LayerCache
from worker.model.linear import Linear
from worker.model.loader import Weights
from worker.model.numerics import Numerics
from worker.model.ragged import QueryTile, RaggedBatch


class Attention:
    """One layer's attention over a ragged batch."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        ratio: int,
        config: ModelConfig,
        numerics: Numerics,
        kernels: KernelBackend,
    ) -> None:
        quantised = kernels if numerics.quantise else None
        self.wq_a = Linear(weights[f"{prefix}wq_a.weight"], quantised)
        self.wq_b = Linear(weights[f"{prefix}wq_b.weight"], quantised)
        self.wkv = Linear(weights[f"{prefix}wkv.weight"], quantised)
        self.wo_b = Linear(weights[f"{prefix}wo_b.weight"], quantised)
        # Training runs wo_a in bfloat16, group by group, without activation quantisation.
        self.wo_a = torch.unflatten(weights[f"{prefix}wo_a.weight"], 0, (config.o_groups, -1))
        self.q_norm = weights[f"{prefix}q_norm.weight"]
        self.kv_norm = weights[f"{prefix}kv_norm.weight"]
        self.sink = weights[f"{prefix}attn_sink"]
        self.compressor = self.indexer = None
        if ratio:
            rounding = "entry" if numerics.quantise else "none"
            self.compressor = Compressor(
                weights, f"{prefix}compressor.", ratio, config, rounding, kernels
            )
        if ratio == CSA_RATIO:
            self.indexer = Indexer(weights, f"{prefix}indexer.", config, numerics, kernels)
        self.ratio = ratio
        self.config = config
        self.quantise = numerics.quantise
        self.kernels = kernels

    def __call__(
        self,
        x: torch.Tensor,  # [T, D]
        batch: RaggedBatch,
        angles: torch.Tensor,  # [T, r] of this layer's kind
        entry_angles: torch.Tensor | None,  # [E, r] at the finished entries' positions
        cache: LayerCache,
    ) -> torch.Tensor:
        eps, kernels = self.config.rms_norm_eps, self.kernels
        latent = kernels.rms_norm(self.wq_a(x), self.q_norm, eps)
        query = self.wq_b(latent).view(len(x), -1, self.config.head_dim)
        kv = self.wkv(x)
        window = batch.window
        kernels.prepare_heads_(
            query,
            kv,
            self.kv_norm,
            angles,
            cache.window,
            window.kept_at if batch.overwrites_unseen else None,
            eps=eps,
            # Attention must see now what it will read back later: chunks may end anywhere.
            rounded=self.quantise or cache.window.packing is not None,
        )
        if entry_angles is not None:
            self._compress(x, batch, entry_angles, cache)
        out = self._attend(x, latent, query, kv, batch, angles, cache)
        if not batch.overwrites_unseen:
            kernels.store_entries(cache.window, window.kept_at, kv[window.kept_rows])
        return self.wo_b(kernels.project_output(out, angles, self.wo_a))

    def _compress(
        self, x: torch.Tensor, batch: RaggedBatch, entry_angles: torch.Tensor, cache: LayerCache
    ) -> None:
        """Finish this chunk's entries first: a token may see the entry it completes."""
        assert self.compressor is not None
        assert cache.entries is not None
        self.compressor(x, batch, entry_angles, cache.entries)
        if self.indexer is not None:
            assert cache.index is not None
            self.indexer.compressor(x, batch, entry_angles, cache.index)

    def _attend(
        self,
        x: torch.Tensor,
        latent: torch.Tensor,
        query: torch.Tensor,
        kv: torch.Tensor,
        batch: RaggedBatch,
        angles: torch.Tensor,
        cache: LayerCache,
    ) -> torch.Tensor:
        """Attention output [T, H, d], tile by tile."""
        pools = [cache.window]  # where the chunk is already, if it overwrote nothing it sees
        if not batch.overwrites_unseen:
            absent = kv.new_zeros(1, kv.shape[1])
            recent = self.kernels.load_blocks(cache.window, batch.slots, kv.dtype)  # [S, R, d]
            pools = [EntryPool(torch.cat((kv, recent.flatten(0, 1), absent)).unsqueeze(0))]
        if cache.entries is not None:
            pools.append(cache.entries.pages)
        index_query = None
        if self.indexer and batch.emissions[self.ratio].visible_most > self.config.index_topk:
            index_query = self.indexer.queries(x, latent, angles)
        out = torch.empty_like(query)
        for tile in batch.tiles:
            indices = [batch.window_rows[tile.rows]]
            if cache.entries is not None:
                indices.append(self._entry_rows(index_query, batch, tile, cache))
            out[tile.rows] = self.kernels.sparse_attention(
                query[tile.rows], pools, indices, self.sink, self.config.head_dim**-0.5
            )
        return out

    def _entry_rows(
        self,
        index_query: tuple[torch.Tensor, torch.Tensor] | None,
        batch: RaggedBatch,
        tile: QueryTile,
        cache: LayerCache,
    ) -> torch.Tensor:
        """Rows [rows, K] of the page pool that a tile's tokens attend to."""
        visible = batch.emissions[self.ratio].visible[tile.rows]
        if index_query is not None:
            assert self.indexer is not None
            assert cache.index is not None
            entry = self.indexer.select(*index_query, batch, tile, cache.index)
        else:  # HCA, or a context so short that the indexer would select everything
            count = tile.positions_stop // self.ratio
            entry = torch.arange(count, device=visible.device).expand(len(visible), -1)
            entry = entry.masked_fill(entry >= visible.unsqueeze(1), -1)
        per_page = self.config.page_entries(self.ratio)
        page = batch.block_table[batch.owner[tile.rows]].gather(1, entry.clamp(min=0) // per_page)
        return torch.where(entry < 0, -1, page * per_page + entry % per_page)
