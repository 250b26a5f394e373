"""The seam between the model and its kernels: a Protocol, and the backends by name.

`worker.model` calls a `KernelBackend` and knows no other. A backend is a module: every function
below under the same name, with the shapes given in `worker.kernels.reference`.
"""

from typing import Protocol

import torch

from worker.errors import ConfigError
from worker.kernels import reference
from worker.kernels.entry_pool import EntryPool


class KernelBackend(Protocol):
    """Operations worth a fused kernel; dense matrix products stay with torch."""

    def rms_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, eps: float, /
    ) -> torch.Tensor: ...

    def rotate_(self, x: torch.Tensor, angles: torch.Tensor, /) -> None: ...

    def hyper_connection_in(
        self,
        streams: torch.Tensor,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        /,
        *,
        iterations: int,
        eps: float,
        norm_eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def hyper_connection_out(
        self,
        y: torch.Tensor,
        streams: torch.Tensor,
        post: torch.Tensor,
        comb: torch.Tensor,
        /,
    ) -> torch.Tensor: ...

    def hyper_connection_next(
        self,
        y: torch.Tensor,
        streams: torch.Tensor,
        post: torch.Tensor,
        comb: torch.Tensor,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        /,
        *,
        iterations: int,
        eps: float,
        norm_eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def hyper_connection_head(
        self,
        streams: torch.Tensor,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        /,
        *,
        eps: float,
        norm_eps: float,
    ) -> torch.Tensor: ...

    def pool_entries(self, rows: torch.Tensor, /) -> torch.Tensor: ...

    def store_entries(
        self, pool: EntryPool, rows: torch.Tensor, entries: torch.Tensor, /
    ) -> None: ...

    def load_blocks(
        self, pool: EntryPool, blocks: torch.Tensor, dtype: torch.dtype, /
    ) -> torch.Tensor: ...

    def index_scores(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        keys: EntryPool,
        block_table: torch.Tensor,
        entries: int,
        /,
    ) -> torch.Tensor: ...

    def select_top(
        self, scores: torch.Tensor, visible: torch.Tensor, k: int, /
    ) -> torch.Tensor: ...

    def sparse_attention(
        self,
        query: torch.Tensor,
        pools: list[EntryPool],
        indices: list[torch.Tensor],
        sink: torch.Tensor,
        scale: float,
        /,
    ) -> torch.Tensor: ...

    def gated(self, gate_up: torch.Tensor, limit: float, /) -> torch.Tensor: ...

    def grouped_experts(
        self,
        x: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        chosen: torch.Tensor,
        weights: torch.Tensor,
        /,
        *,
        limit: float,
        quantise: bool,
    ) -> torch.Tensor: ...

    def prepare_heads_(
        self,
        query: torch.Tensor,
        kv: torch.Tensor,
        kv_norm: torch.Tensor,
        angles: torch.Tensor,
        window: EntryPool,
        stored_at: torch.Tensor | None,
        /,
        *,
        eps: float,
        rounded: bool,
    ) -> None: ...

    def compress_entries(
        self,
        rows: torch.Tensor,
        tail: torch.Tensor,
        slots: torch.Tensor,
        sources: torch.Tensor,
        bias: torch.Tensor,
        norm: torch.Tensor,
        angles: torch.Tensor,
        pool: EntryPool,
        stored_at: torch.Tensor,
        /,
        *,
        eps: float,
        rounding: str,
    ) -> None: ...

    def project_output(
        self, out: torch.Tensor, angles: torch.Tensor, weight: torch.Tensor, /
    ) -> torch.Tensor: ...

    def quantise_activation(self, x: torch.Tensor, /) -> torch.Tensor: ...

    def quantise_entry_(self, x: torch.Tensor, rope_dims: int, /) -> None: ...

    def quantise_index(self, x: torch.Tensor, /) -> torch.Tensor: ...


BACKENDS: dict[str, KernelBackend] = {"reference": reference}


def load_backend(name: str) -> KernelBackend:
    """Look up a backend. Raises ConfigError that lists the known names."""
    if name not in BACKENDS:
        raise ConfigError(f"unknown kernel backend {name!r}; known: {', '.join(BACKENDS)}")
    return BACKENDS[name]
