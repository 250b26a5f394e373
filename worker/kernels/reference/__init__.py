"""The kernel backend in plain torch: runs anywhere, and is the truth other backends are tested
against. One file per operation; shapes are in the signatures."""

from worker.kernels.reference.attention import sparse_attention
from worker.kernels.reference.compress import compress_entries
from worker.kernels.reference.experts import gated, grouped_experts
from worker.kernels.reference.hyper_connection import (
    hyper_connection_head,
    hyper_connection_in,
    hyper_connection_next,
    hyper_connection_out,
)
from worker.kernels.reference.index import index_scores, index_top, select_top
from worker.kernels.reference.norm import rms_norm
from worker.kernels.reference.output import project_output
from worker.kernels.reference.pool import load_blocks, store_entries
from worker.kernels.reference.quantise import quantise_activation, quantise_index
from worker.kernels.reference.rope import rotate_
from worker.kernels.reference.window_insert import prepare_heads_

__all__ = [
    "compress_entries",
    "gated",
    "grouped_experts",
    "hyper_connection_head",
    "hyper_connection_in",
    "hyper_connection_next",
    "hyper_connection_out",
    "index_scores",
    "index_top",
    "load_blocks",
    "prepare_heads_",
    "project_output",
    "quantise_activation",
    "quantise_index",
    "rms_norm",
    "rotate_",
    "select_top",
    "sparse_attention",
    "store_entries",
]
