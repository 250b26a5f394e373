"""Row 8: the residual streams between two sublayers."""

import torch

from benchmarks.kernels.case import Case, Row, noise
from worker.kernels import reference
from worker.kernels.load import KernelBackend


def advance(backend: KernelBackend, device: str, *, tokens: int, width: int) -> Case:
    """One sublayer's output into the streams, and the next sublayer's input out of them. The new
    streams are counted twice, written and read: a token's weights need all of its channels."""
    n = 4
    columns = n * (n + 2)
    y = noise(tokens, width, device=device)
    streams = noise(tokens, n, width, device=device)
    post = noise(tokens, n, device=device, dtype=torch.float32)
    comb = noise(tokens, n, n, device=device, dtype=torch.float32)
    fn = noise(columns, n * width, device=device, dtype=torch.float32) * width**-0.5
    base = noise(columns, device=device, dtype=torch.float32)
    scale = noise(3, device=device, dtype=torch.float32)

    def run(kernels: KernelBackend) -> tuple[torch.Tensor, ...]:
        return kernels.hyper_connection_next(
            y, streams, post, comb, fn, base, scale, iterations=20, eps=1e-6, norm_eps=1e-6
        )

    def values(kernels: KernelBackend) -> torch.Tensor:
        return torch.cat([result.flatten(1).float() for result in run(kernels)], 1)

    weights = post.nbytes + comb.nbytes  # read, and written for the next
    return Case(
        ours=lambda: run(backend)[0],
        reference=lambda: run(reference)[0],
        moved_bytes=3 * streams.nbytes + 2 * y.nbytes + 2 * weights + fn.nbytes,
        flops=2 * tokens * width * n * (columns + 1 + n + 1),
        tolerance=2.0**-6,
        checked=(lambda: values(backend), lambda: values(reference)),
    )


ROWS = (
    Row(
        "8a",
        "streams from a sublayer to the next, 4,096 tokens",
        advance,
        {"tokens": 4_096, "width": 4_096},
        {"tokens": 5, "width": 96},
        "%",
        60,
        75,
        ("tilelang",),
    ),
    Row(
        "8b",
        "streams from a sublayer to the next, 64 tokens",
        advance,
        {"tokens": 64, "width": 4_096},
        {"tokens": 2, "width": 64},
        "us",
        15,
        15,
        ("tilelang",),
    ),
)
