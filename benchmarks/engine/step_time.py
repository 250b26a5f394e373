"""A whole step against the sum of its own matrix products, timed alone in the same run.

The products are recorded while a step runs and repeated as they were, with the same operands in
the same memory. What a step costs beyond them is ours: batch preparation, gathers, norms,
rotations, routing, sampling. The Sinkhorn iterations' products of 16x16 matrices are not counted.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engine.models import MODELS, model_directory, noisy_runner
from benchmarks.engine.results import Row, milliseconds
from benchmarks.engine.timing import compare
from worker.batch import Batch, ScheduledSequence
from worker.config import EngineConfig, ModelConfig
from worker.request import SamplingParams

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default}
COMPOSITES = {aten.linear.default, aten.matmul.default, aten.einsum.default}
AIM = {"slim": 1.3}
CONTEXT_TOKENS = 2_304  # beyond 4 x index_topk, so that the indexer works
CHUNK_TOKENS = 512
MOST_RUNNING = 32
GREEDY = SamplingParams(max_tokens=1, temperature=0.0)


class RecordedProducts(TorchDispatchMode):
    """Every matrix product that runs inside, ready to run again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in COMPOSITES:  # inference mode does not take them apart by itself
            with self:
                return func.decompose(*args, **(kwargs or {}))
        if func in PRODUCTS:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    @torch.inference_mode()
    def repeat(self) -> None:
        for func, args in self.calls:
            func(*args)


def measure(name: str, root: Path, *, rounds: int) -> Iterator[Row]:
    """Rows for decodes of 1, 8 and 32 requests and for one prefill chunk."""
    config = MODELS[name]
    pages = MOST_RUNNING * (-(-(CONTEXT_TOKENS * 2) // config.page_tokens))
    engine = EngineConfig(pages=pages, max_sequences=MOST_RUNNING)
    runner = noisy_runner(model_directory(name, root), engine)
    cases = {f"decode, {n} running": _decodes(config, n) for n in (1, 8, MOST_RUNNING)}
    cases[f"prefill, {CHUNK_TOKENS} tokens"] = [_sequence(config, 0, CHUNK_TOKENS)]
    for case, sequences in cases.items():
        batch = Batch(sequences)
        products = RecordedProducts()
        with products:
            runner.execute(batch)
        times = compare(lambda b=batch: runner.execute(b), products.repeat, rounds)  # type: ignore[misc]
        yield Row(
            "step time",
            name,
            case,
            milliseconds(median(times.ours)),
            f"{milliseconds(median(times.other))}, {len(products.calls)} matrix products",
            times.ratio,
            times.spread,
            AIM.get(name),
        )


def _decodes(config: ModelConfig, count: int) -> list[ScheduledSequence]:
    """One token of each of `count` sequences of different lengths."""
    return [_sequence(config, slot, 1, start=CONTEXT_TOKENS + 37 * slot) for slot in range(count)]


def _sequence(
    config: ModelConfig, slot: int, tokens: int, start: int = CONTEXT_TOKENS
) -> ScheduledSequence:
    pages_each = -(-(CONTEXT_TOKENS * 2) // config.page_tokens)
    token_ids = Random(slot).choices(range(config.vocab_size), k=tokens)
    pages = [slot * pages_each + i for i in range(-(-(start + tokens) // config.page_tokens))]
    return ScheduledSequence(str(slot), token_ids, start, pages, slot, GREEDY, start + tokens)
