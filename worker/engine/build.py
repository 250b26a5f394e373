"""Puts an engine together from a model directory. Used by the launcher and by tests."""

from pathlib import Path

from worker.cache.manager import CacheManager
from worker.cache.policy import snapshot_interval_pages
from worker.config import EngineConfig, ModelConfig
from worker.engine.core import EngineCore
from worker.engine.group import EngineGroup
from worker.errors import ConfigError
from worker.metrics import EngineMetrics
from worker.parallel.groups import ALONE, ExpertGroup, check_split
from worker.runner.model_runner import ModelRunner
from worker.scheduler import Scheduler


def check_limits(model: ModelConfig, engine: EngineConfig) -> None:
    """Raises ConfigError when a request of full length could not run alone, or the experts cannot
    be shared by so many ranks."""
    check_split(model.n_routed_experts, engine.ep_size)
    page_positions = engine.pages * model.page_tokens
    if engine.max_model_len > model.max_position_embeddings:
        raise ConfigError(
            f"max_model_len {engine.max_model_len} is more than the model's "
            f"{model.max_position_embeddings} positions; lower --max-model-len"
        )
    if page_positions < engine.max_model_len:
        raise ConfigError(
            f"{engine.pages} pages hold {page_positions} tokens, less than max_model_len "
            f"{engine.max_model_len}; raise --pages or lower --max-model-len"
        )
    if engine.max_batch_tokens < engine.max_sequences:
        raise ConfigError(
            f"max_batch_tokens {engine.max_batch_tokens} is less than max_sequences "
            f"{engine.max_sequences}; raise --max-batch-tokens or lower --max-sequences"
        )


def build_scheduler(model: ModelConfig, engine: EngineConfig, *, revision: str) -> Scheduler:
    """The scheduler and cache for these limits. Raises ConfigError."""
    check_limits(model, engine)
    cache = CacheManager(
        pages=engine.pages,
        state_slots=engine.max_sequences,
        snapshots=engine.snapshots_kept,
        page_tokens=model.page_tokens,
        snapshot_interval_pages=snapshot_interval_pages(engine.snapshots),
        state_reach_tokens=model.state_reach_tokens,
        model_revision=revision,
    )
    return Scheduler(
        cache,
        max_sequences=engine.max_sequences,
        max_batch_tokens=engine.max_batch_tokens,
        max_model_len=engine.max_model_len,
    )


def build_engine(
    directory: Path, engine: EngineConfig, metrics: EngineMetrics
) -> EngineCore | EngineGroup:
    """Load the model, here or on several ranks, and connect it. Raises ConfigError,
    CheckpointError, EngineCrashed."""
    model = ModelConfig.from_dir(directory)
    if engine.ep_size > 1:
        check_limits(model, engine)
        return EngineGroup(directory, model, engine, metrics)
    return build_core(directory, engine, metrics)


def build_core(
    directory: Path, engine: EngineConfig, metrics: EngineMetrics, group: ExpertGroup = ALONE
) -> EngineCore:
    """One rank's engine, in this process. Raises ConfigError, CheckpointError."""
    model = ModelConfig.from_dir(directory)
    scheduler = build_scheduler(model, engine, revision=str(directory.resolve()))
    return EngineCore(scheduler, ModelRunner(directory, engine, group), metrics, group)
