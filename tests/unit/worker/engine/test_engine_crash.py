"""What happens when a forward raises."""

import pytest

from worker.batch import Batch, SequenceOutput, TokenLogprob
from worker.cache.manager import CacheManager
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore, Runner
from worker.errors import Unavailable
from worker.metrics import EngineMetrics
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Scheduler


class NonsenseRunner:
    """A model without one finite logit."""

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        return [SequenceOutput(s.request_id, error="not finite") for s in batch.sequences]


class BreakingRunner:
    """Works for `good_steps` forwards, then raises like a device that is gone."""

    def __init__(self, good_steps: int) -> None:
        self.good_steps = good_steps

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        if self.good_steps == 0:
            raise RuntimeError("device lost")
        self.good_steps -= 1
        return [SequenceOutput(s.request_id, [TokenLogprob(5, -1.0)]) for s in batch.sequences]


def client(runner: Runner) -> EngineClient:
    cache = CacheManager(pages=8, state_slots=4, snapshots=4, page_tokens=16)
    scheduler = Scheduler(cache, max_sequences=4, max_batch_tokens=64, max_model_len=128)
    core = EngineCore(scheduler, runner, EngineMetrics("m"))
    return EngineClient(core, max_requests=8)


async def test_crash_fails_the_running_and_refuses_the_next() -> None:
    engine = client(BreakingRunner(good_steps=5))
    await engine.start()
    assert engine.unavailable_reason() is None
    with engine.generate(Request("a", [1, 2], SamplingParams(max_tokens=50))) as progress:
        while True:
            last = await progress.get()
            if last.finish_reason is not None:
                break
    assert last.finish_reason is FinishReason.ERROR
    assert engine.crashed.is_set()
    with pytest.raises(Unavailable) as caught:
        engine.check_available()
    assert caught.value.code == "engine_failed"
    await engine.stop()


async def test_crash_in_the_first_generation_is_never_ready() -> None:
    engine = client(BreakingRunner(good_steps=0))
    await engine.start()
    assert engine.crashed.is_set()
    reason = engine.unavailable_reason()
    assert reason is not None
    assert reason.code == "engine_failed"
    await engine.stop()


async def test_a_model_that_gives_nothing_is_never_ready_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = client(NonsenseRunner())
    await engine.start()
    assert engine.crashed.is_set()
    assert "the first generation failed: not finite" in caplog.text
    await engine.stop()
