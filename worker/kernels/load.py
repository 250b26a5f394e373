"""The seam between the model and its kernels: a Protocol, and the backends by name.

`worker.model` calls a `KernelBackend` and knows no other. A backend is a module: every function
below under the same name, with the shapes given in `worker.kernels.reference`. The model runner
asks `load_backend` for one before it loads weights.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch

from worker.config import ModelConfig
from worker.errors import ConfigError
from worker.kernels import reference
from worker.kernels.devices import is_hopper_or_later
from worker.kernels.entry_pool import EntryPool

logger = logging.getLogger(__name__)

AUTO = "auto"


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

    def index_top(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        keys: EntryPool,
        block_table: torch.Tensor,
        visible: torch.Tensor,
        entries: int,
        k: int,
        /,
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

    def quantise_index(self, x: torch.Tensor, /) -> torch.Tensor: ...


def load_backend(name: str, config: ModelConfig, device: str) -> KernelBackend:
    """The backend that computes a model of `config` on `device`. "auto" is triton on a Hopper GPU
    or a later one, and reference anywhere else; what cannot run is refused, and nothing slower
    takes its place. Raises ConfigError that names what works."""
    if name not in (AUTO, *BACKENDS):
        known = ", ".join((AUTO, *BACKENDS))
        raise ConfigError(f"unknown kernel backend {name!r}; known: {known}")
    chosen = name
    if name == AUTO:
        chosen = "triton" if is_hopper_or_later(device) else "reference"
    backend = BACKENDS[chosen](config, device)
    logger.info("kernels: %s", chosen, extra={"fields": {"kernels": chosen, "device": device}})
    return backend


def _reference(config: ModelConfig, device: str) -> KernelBackend:
    return reference


def _triton(config: ModelConfig, device: str) -> KernelBackend:
    try:
        import triton  # noqa: F401  CUDA builds of torch bring it, others need not have it
    except ImportError:
        raise ConfigError(
            "kernel backend 'triton' needs the package triton, which CUDA builds of torch bring "
            "along; install it, or use --kernels reference"
        ) from None
    from worker.kernels import triton as backend
    from worker.kernels.triton.requirements import device_refusal, model_refusals

    refusal = device_refusal(device)
    if refusal is not None:
        raise ConfigError(f"kernel backend 'triton': {refusal}; use --kernels reference")
    refusals = list(model_refusals(backend, config))
    if refusals:
        raise ConfigError(
            f"kernel backend 'triton' cannot run this model: {'; '.join(refusals)}; "
            "use --kernels reference"
        )
    return backend


BACKENDS: dict[str, Callable[[ModelConfig, str], KernelBackend]] = {
    "reference": _reference,
    "triton": _triton,
}
