"""A real engine on the tiny model, new for every test; the weights are loaded once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.running_engine import ENGINE, RunningEngine

from worker.config import ModelConfig
from worker.engine.build import build_scheduler
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore
from worker.metrics import EngineMetrics
from worker.runner.model_runner import ModelRunner


@pytest.fixture(scope="session")
def runner(tiny_directory: Path) -> ModelRunner:
    return ModelRunner(tiny_directory, ENGINE)


@pytest.fixture
async def engine(tiny_directory: Path, runner: ModelRunner) -> AsyncIterator[RunningEngine]:
    """After the test nothing may be held any more."""
    scheduler = build_scheduler(ModelConfig.from_dir(tiny_directory), ENGINE, revision="tiny")
    core = EngineCore(scheduler, runner, EngineMetrics("tiny"))
    client = EngineClient(core, max_requests=ENGINE.max_sequences + 4)
    await client.start()
    yield RunningEngine(client, scheduler, runner)
    await client.stop()
    scheduler.check()
    assert (scheduler.running, scheduler.waiting, scheduler.page_usage) == (0, 0, 0.0)
