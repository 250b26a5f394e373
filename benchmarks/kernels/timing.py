"""Times on a GPU: replays of a CUDA graph with a cold L2 cache, and the device's own limits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

FLUSHED_BYTES = 256 << 20  # several times an H100's L2 cache
COPIED_BYTES = 1 << 30
MATRIX = 8_192


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds. `graph`: replayed from a CUDA graph; else launched one by one, because the
    operation waits for the device somewhere."""

    median: float
    p95: float
    graph: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Of this device, as measured: bytes and bfloat16 operations per second."""

    bandwidth: float
    flops: float

    def floor(self, moved_bytes: int, flops: int) -> float:
        """Microseconds below which no kernel can be."""
        return 1e6 * max(moved_bytes / self.bandwidth, flops / self.flops)


def measure(run: Callable[[], object], rounds: int) -> Times:
    """Time `run` on the current CUDA device."""
    for _ in range(3):  # compiles, tunes, allocates
        run()
    torch.cuda.synchronize()
    launch, graph = _captured(run)
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(rounds)
    ]
    for start, stop in pairs:
        flushed.zero_()
        start.record()
        launch()
        stop.record()
    torch.cuda.synchronize()
    times = torch.tensor([1e3 * start.elapsed_time(stop) for start, stop in pairs])
    return Times(float(times.median()), float(times.quantile(0.95)), graph)


def limits(rounds: int) -> Limits:
    """A copy's bandwidth, read and write together, and the rate of a large matrix product."""
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    left, right = torch.randn(2, MATRIX, MATRIX, device="cuda").bfloat16()
    copied = measure(lambda: target.copy_(source), rounds).median
    multiplied = measure(lambda: left @ right, rounds).median
    return Limits(2e6 * COPIED_BYTES / copied, 2e6 * MATRIX**3 / multiplied)


def _captured(run: Callable[[], object]) -> tuple[Callable[[], object], bool]:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:  # a wait for the device cannot be captured
        torch.cuda.synchronize()
        return run, False
    return graph.replay, True
