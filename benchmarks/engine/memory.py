"""Resident memory over thousands of requests through the whole engine: its slope, with its error.

Requests are of mixed lengths; a third repeats an earlier one's prefix, one in ten is aborted in
mid-stream, and there are always more than can run at once. After every hundred the engine comes to
rest, and the heap gives its free memory back before its size is taken: what a busy moment takes for
itself and the allocator keeps would hide a leak, or look like one.
"""

import asyncio
import ctypes
import gc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from statistics import linear_regression

import psutil

from benchmarks.engine.models import model_directory
from benchmarks.engine.results import Row
from worker.config import EngineConfig
from worker.engine.build import build_engine
from worker.engine.client import EngineClient
from worker.metrics import EngineMetrics
from worker.request import Request, SamplingParams

AIM_BYTES_PER_REQUEST = 100.0
IN_FLIGHT = 24
SAMPLED_EVERY = 100  # requests
WARM_UP = 0.3  # share of the samples before memory is expected to be steady
PROMPT_TOKENS = (1, 400)
ENGINE = EngineConfig(max_model_len=1_024, max_sequences=16, max_batch_tokens=512, pages=48)


def measure(
    name: str, root: Path, *, requests: int, sampled_every: int = SAMPLED_EVERY
) -> Iterator[Row]:
    """One row: bytes of growth for each of `requests`, over the bytes allowed."""
    samples = asyncio.run(_samples(model_directory(name, root), requests, sampled_every))
    steady = samples[int(len(samples) * WARM_UP) :]
    slope, error = _slope(steady)
    yield Row(
        "steady memory",
        name,
        f"{requests:,} requests",
        f"{slope:+.0f} +- {error:.0f} bytes a request",
        f"{AIM_BYTES_PER_REQUEST:.0f} bytes; {steady[-1][1] / 1e6:.0f} MB resident",
        max(0.0, slope - 2 * error) / AIM_BYTES_PER_REQUEST,
        ((slope - 2 * error) / AIM_BYTES_PER_REQUEST, (slope + 2 * error) / AIM_BYTES_PER_REQUEST),
        1.0,
    )


async def _samples(directory: Path, requests: int, sampled_every: int) -> list[tuple[int, int]]:
    """(requests done, resident bytes) of an engine at rest."""
    client = EngineClient(
        build_engine(directory, ENGINE, EngineMetrics("benchmark")), max_requests=IN_FLIGHT
    )
    await client.start()
    work, samples = _work(requests), []

    async def serve(share: Iterator[tuple[Request, int]]) -> None:
        for request, stop_after in share:
            with client.generate(request) as progress:
                for _ in range(stop_after):
                    if (await progress.get()).finish_reason is not None:
                        break

    for done in range(sampled_every, requests + 1, sampled_every):
        share = islice(work, sampled_every)
        await asyncio.gather(*(serve(share) for _ in range(IN_FLIGHT)))
        while client.running or client.waiting:  # aborts take effect at the next step
            await asyncio.sleep(0.01)
        samples.append((done, _resident_bytes()))
    await client.stop()
    return samples


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _work(requests: int) -> Iterator[tuple[Request, int]]:
    """Requests, each with the number of tokens after which its client leaves."""
    random = Random(0)
    known = [random.choices(range(1_000), k=PROMPT_TOKENS[1]) for _ in range(8)]
    for number in range(requests):
        prompt = random.choices(range(1_000), k=random.randint(*PROMPT_TOKENS))
        if random.random() < 1 / 3:
            prompt = random.choice(known) + prompt[:50]
        sampling = SamplingParams(
            max_tokens=random.randint(1, 12),
            temperature=random.choice((0.0, 1.0)),
            seed=number,
            logprobs=random.choice((None, 3)),
        )
        aborted = random.random() < 0.1
        yield Request(str(number), prompt, sampling), 2 if aborted else 1_000


def _slope(samples: list[tuple[int, int]]) -> tuple[float, float]:
    """Least squares through (requests, bytes), and the standard error of the slope."""
    x, y = zip(*samples, strict=True)
    slope, intercept = linear_regression(x, y)
    mean = sum(x) / len(x)
    residual = sum((b - intercept - slope * a) ** 2 for a, b in samples) / max(1, len(samples) - 2)
    return slope, (residual / sum((a - mean) ** 2 for a in x)) ** 0.5
