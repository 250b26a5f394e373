"""The cache's memory: every layer's pages and state slots, and snapshots, allocated at start."""

from collections.abc import Iterable, Iterator

import torch

from worker.batch import StateCopy
from worker.config import CSA_RATIO, EngineConfig, ModelConfig
from worker.errors import ConfigError
from worker.kernels.entry_pool import EntryPool, Packing, index_packing, kv_packing
from worker.model.layer_cache import EntryCache, LayerCache
from worker.runner.snapshots import Snapshots

KV_FORMATS = ("auto", "fp8")  # the compute dtype, or DeepSeek's packed entries


class KVTensors:
    """One `LayerCache` per layer, one in `drafting` for the draft head where there is one, the
    snapshots, and the operations on whole slots. Raises ConfigError for an unknown `kv_format`."""

    def __init__(self, config: ModelConfig, engine: EngineConfig, dtype: torch.dtype) -> None:
        if engine.kv_format not in KV_FORMATS:
            known = ", ".join(KV_FORMATS)
            raise ConfigError(f"unknown KV cache dtype {engine.kv_format!r}; known: {known}")
        self._config = config
        self._engine = engine
        self._dtype = dtype
        ratios = config.compress_ratios[: config.num_hidden_layers]
        self.layers = [self._layer(ratio) for ratio in ratios]
        self.drafting = self._layer(0) if engine.draft_tokens else None
        self._snapshots = Snapshots(engine.snapshots_kept, self._all_layers())
        self.bytes_per_page = sum(pool.data[0].nbytes for pool in self._pages())
        self.bytes_per_slot = sum(t[0].nbytes for t in self._slot_tensors())
        self.bytes_per_snapshot = self._snapshots.bytes_each

    @property
    def padding_per_page(self) -> int:
        """Bytes of a page that align packed blocks and hold nothing."""
        packings = [pool.packing for pool in self._pages() if pool.packing is not None]
        return sum(p.block_bytes - p.entries * p.entry_bytes for p in packings)

    def clear(self, slots: Iterable[int]) -> None:
        """Forget the slots' content, so that nothing of one sequence can reach another."""
        chosen = list(slots)
        if chosen:
            for tensor in self._slot_tensors():
                tensor[chosen] = 0

    def restore(self, copies: Iterable[StateCopy]) -> None:
        """Make each slot hold its snapshot's state, and nothing of what it held."""
        for copy in copies:
            self.clear([copy.slot])
            self._snapshots.restore(copy)

    def keep(self, copies: Iterable[StateCopy]) -> None:
        """Fill each snapshot from its slot."""
        for copy in copies:
            self._snapshots.keep(copy)

    def _layer(self, ratio: int) -> LayerCache:
        config, slots = self._config, self._engine.max_sequences
        ring = config.sliding_window + self._engine.draft_tokens
        window = self._pool(slots + 1, self._kv_shape(ring))
        if not ratio:
            return LayerCache(window, entries=None, index=None)
        per_page = config.page_entries(ratio)
        entries = self._entries(ratio, config.head_dim, self._kv_shape(per_page))
        if ratio != CSA_RATIO:
            return LayerCache(window, entries, index=None)
        dim = config.index_head_dim
        keys = index_packing(per_page, dim) if self._packed else (per_page, dim)
        return LayerCache(window, entries, self._entries(ratio, dim, keys))

    def _entries(self, ratio: int, dim: int, shape: Packing | tuple[int, int]) -> EntryCache:
        engine = self._engine
        overlap = 2 if ratio == CSA_RATIO else 1  # CSA pools two groups of doubled width
        ring = overlap * ratio + engine.draft_tokens
        tail = (engine.max_sequences, ring, 2, overlap * dim)
        return EntryCache(
            pages=self._pool(engine.pages + 1, shape),
            tail=torch.zeros(tail, dtype=torch.float32, device=engine.device),
            overlap_tokens=ratio if ratio == CSA_RATIO else 0,
        )

    def _kv_shape(self, entries: int) -> Packing | tuple[int, int]:
        head_dim = self._config.head_dim
        if self._packed:
            return kv_packing(entries, head_dim, self._config.qk_rope_head_dim)
        return entries, head_dim

    def _pool(self, blocks: int, shape: Packing | tuple[int, int]) -> EntryPool:
        return EntryPool.zeros(blocks, shape, self._dtype, self._engine.device)

    @property
    def _packed(self) -> bool:
        return self._engine.kv_format == "fp8"

    def _all_layers(self) -> list[LayerCache]:
        return self.layers if self.drafting is None else [*self.layers, self.drafting]

    def _compressors(self) -> Iterator[EntryCache]:
        for layer in self.layers:
            yield from (cache for cache in (layer.entries, layer.index) if cache is not None)

    def _pages(self) -> Iterator[EntryPool]:
        yield from (cache.pages for cache in self._compressors())

    def _slot_tensors(self) -> Iterator[torch.Tensor]:
        yield from (layer.window.data for layer in self._all_layers())
        yield from (cache.tail for cache in self._compressors())
