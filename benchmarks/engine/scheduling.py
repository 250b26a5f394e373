"""What a step costs before and after its forward: schedule, batch preparation, update.

Sequences decode with the geometry of DeepSeek-V4-Flash itself, no forward is run, and every one
gets a made-up token. The aim is absolute, as nothing else does the same work to compare with, and
the time is the thread's own on the processor, so that a busy machine does not add to it.
"""

import time
from collections.abc import Iterator
from random import Random
from statistics import median

from benchmarks.engine.models import FLASH
from benchmarks.engine.results import Row, milliseconds
from worker.batch import Batch, SequenceOutput, TokenLogprob
from worker.config import EngineConfig
from worker.engine.build import build_scheduler
from worker.model.ragged import lay_out
from worker.request import Request, SamplingParams

RUNNING = 256
AIM_SECONDS = 1.5e-3
CONTEXT_TOKENS = (512, 8_192)
ENGINE = EngineConfig(max_model_len=16_384, max_sequences=RUNNING, pages=RUNNING * 40)


def measure(*, rounds: int, running: int = RUNNING) -> Iterator[Row]:
    """One row, from the median of `rounds` steps in which `running` sequences decode."""
    scheduler = build_scheduler(FLASH, ENGINE, revision="benchmark")
    random = Random(0)
    sampling = SamplingParams(max_tokens=8_192, temperature=0.0)
    for i in range(running):
        prompt = random.choices(range(FLASH.vocab_size), k=random.randint(*CONTEXT_TOKENS))
        scheduler.add(Request(str(i), prompt, sampling))
    parts: list[tuple[float, float, float]] = []
    while len(parts) < rounds:
        begin = time.thread_time()
        batch = scheduler.schedule()
        assert batch is not None
        scheduled = time.thread_time()
        lay_out(batch.sequences, FLASH, ENGINE)
        laid_out = time.thread_time()
        outputs = _made_up(batch)
        ran = time.thread_time()
        scheduler.update(outputs)
        if batch.token_count == running:  # before this, prompts were being prefilled
            updated = time.thread_time()
            parts.append((scheduled - begin, laid_out - scheduled, updated - ran))
    steps = [sum(p) for p in parts]
    schedule, prepare, update = (milliseconds(median(p)) for p in zip(*parts, strict=True))
    yield Row(
        "scheduling",
        "Flash's geometry",
        f"{running} running",
        milliseconds(median(steps)),
        f"{milliseconds(AIM_SECONDS)}; schedule {schedule}, prepare {prepare}, update {update}",
        median(steps) / AIM_SECONDS,
        (min(steps) / AIM_SECONDS, max(steps) / AIM_SECONDS),
        1.0,
    )


def _made_up(batch: Batch) -> list[SequenceOutput]:
    return [
        SequenceOutput(
            s.request_id, [] if s.sample_position is None else [TokenLogprob(s.start % 97 + 2, 0.0)]
        )
        for s in batch.sequences
    ]
