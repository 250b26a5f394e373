"""The cache's memory: every layer's pages and state slots, allocated once at start."""

from collections.abc import Iterable, Iterator

import torch

from worker.config import CSA_RATIO, EngineConfig, ModelConfig
from worker.model.layer_cache import EntryCache, LayerCache


class KVTensors:
    """One `LayerCache` per layer, one in `drafting` for the draft head where there is one, and the
    operations on whole slots."""

    def __init__(self, config: ModelConfig, engine: EngineConfig, dtype: torch.dtype) -> None:
        self._config = config
        self._engine = engine
        self._dtype = dtype
        ratios = config.compress_ratios[: config.num_hidden_layers]
        self.layers = [self._layer(ratio) for ratio in ratios]
        self.drafting = self._layer(0) if engine.draft_tokens else None
        self.bytes_per_page = sum(t[0].nbytes for t in self._page_tensors())
        self.bytes_per_slot = sum(t[0].nbytes for t in self._slot_tensors())

    def clear(self, slots: Iterable[int]) -> None:
        """Forget the slots' content, so that nothing of one sequence can reach another."""
        chosen = list(slots)
        if chosen:
            for tensor in self._slot_tensors():
                tensor[chosen] = 0

    def copy(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy slot to slot, (source, destination) after (source, destination)."""
        for source, destination in pairs:
            for tensor in self._slot_tensors():
                tensor[destination] = tensor[source]

    def _layer(self, ratio: int) -> LayerCache:
        config = self._config
        ring = config.sliding_window + self._engine.draft_tokens
        shape = (self._engine.state_slots, ring, config.head_dim)
        window = torch.zeros(shape, dtype=self._dtype, device=self._engine.device)
        entries = self._entries(ratio, config.head_dim) if ratio else None
        index = self._entries(ratio, config.index_head_dim) if ratio == CSA_RATIO else None
        return LayerCache(window, entries, index)

    def _entries(self, ratio: int, dim: int) -> EntryCache:
        engine, device = self._engine, self._engine.device
        overlap = 2 if ratio == CSA_RATIO else 1  # CSA pools two groups of doubled width
        pages = (engine.pages + 1, self._config.page_entries(ratio), dim)
        ring = overlap * ratio + engine.draft_tokens
        tail = (engine.state_slots, ring, 2, overlap * dim)
        return EntryCache(
            pages=torch.zeros(pages, dtype=self._dtype, device=device),
            tail=torch.zeros(tail, dtype=torch.float32, device=device),
        )

    def _compressors(self) -> Iterator[EntryCache]:
        for layer in self.layers:
            yield from (cache for cache in (layer.entries, layer.index) if cache is not None)

    def _page_tensors(self) -> Iterator[torch.Tensor]:
        yield from (cache.pages for cache in self._compressors())

    def _slot_tensors(self) -> Iterator[torch.Tensor]:
        yield from (layer.window for layer in self.layers)
        if self.drafting is not None:
            yield self.drafting.window
        yield from (cache.tail for cache in self._compressors())
