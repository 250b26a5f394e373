"""The kernel backend in Triton for Hopper GPUs; what has no kernel here is the reference's.

`worker.kernels.load` imports it when it is asked for: torch alone runs the reference.
"""

import triton

from worker.kernels.reference import (
    gated,
    grouped_experts,
)
from worker.kernels.triton.attention import sparse_attention
from worker.kernels.triton.compress import compress_entries
from worker.kernels.triton.hyper_connection import (
    hyper_connection_head,
    hyper_connection_in,
    hyper_connection_next,
    hyper_connection_out,
)
from worker.kernels.triton.index_scores import index_scores
from worker.kernels.triton.index_top import index_top
from worker.kernels.triton.norm import rms_norm
from worker.kernels.triton.output import project_output
from worker.kernels.triton.pool import load_blocks, store_entries
from worker.kernels.triton.quantise import quantise_activation, quantise_index
from worker.kernels.triton.rope import rotate_
from worker.kernels.triton.select_top import select_top
from worker.kernels.triton.window_insert import prepare_heads_

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

triton.knobs.language.default_fp_fusion = True  # today's default, said so that nothing warns
