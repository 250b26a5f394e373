"""Row 8: the residual streams into a sublayer and out of it."""

import torch

from benchmarks.kernels.case import Case, Row, noise
from worker.kernels import reference
from worker.kernels.load import KernelBackend


def mix(backend: KernelBackend, device: str, *, tokens: int, width: int) -> Case:
    """Weights and sum, Sinkhorn, and the next streams, with the sublayer left out."""
    n = 4
    columns = n * (n + 2)
    streams = noise(tokens, n, width, device=device)
    fn = noise(columns, n * width, device=device, dtype=torch.float32) * width**-0.5
    base = noise(columns, device=device, dtype=torch.float32)
    scale = noise(3, device=device, dtype=torch.float32)

    def run(kernels: KernelBackend) -> torch.Tensor:
        x, post, comb = kernels.hyper_connection_in(
            streams, fn, base, scale, iterations=20, eps=1e-6, norm_eps=1e-6
        )
        return kernels.hyper_connection_out(x, streams, post, comb)

    weights = 4 * tokens * (n + n * n)
    sublayer = 2 * tokens * width * streams.itemsize  # its input written, its output read
    return Case(
        ours=lambda: run(backend),
        reference=lambda: run(reference),
        moved_bytes=3 * streams.nbytes + sublayer + 2 * weights + fn.nbytes,
        flops=2 * tokens * width * n * (columns + 1 + n + 1),
        tolerance=2.0**-6,
    )


ROWS = (
    Row(
        "8a",
        "hyper-connection in and out, 4,096 tokens",
        mix,
        {"tokens": 4_096, "width": 4_096},
        {"tokens": 5, "width": 96},
        "%",
        60,
        75,
        ("tilelang",),
    ),
    Row(
        "8b",
        "hyper-connection in and out, 64 tokens",
        mix,
        {"tokens": 64, "width": 4_096},
        {"tokens": 2, "width": 64},
        "us",
        15,
        15,
        ("tilelang",),
    ),
)
