"""What an engine is started with: context, concurrency and division, from the memory there is.

Called by `operator.manifests` for a replica's pods and by whoever needs to know beforehand what a
deployment would get.
"""

from dataclasses import dataclass
from math import ceil, floor

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import EngineName, EngineSpec
from controlplane.planner.capacity import Budget, budget
from controlplane.planner.geometry import TINY, V4_FLASH, Geometry
from controlplane.planner.memory import PAGE_TOKENS, CacheSize, KVFormat, cache_size
from controlplane.planner.refusal import DoesNotFit
from controlplane.planner.support import SUPPORT, EngineSupport, resolve
from controlplane.planner.weights import Parallelism, total_bytes

SHORTEST_CONTEXT = 8_192  # tokens; a replica that cannot hold even this is refused
CPU_CONTEXT = 32_768
FULL_SEQUENCES = 4  # of the longest context that each copy of the cache should hold
TYPICAL_TOKENS = 16_384  # of a request, to size the number that run at once
TOKENS_PER_SNAPSHOT = 64 * PAGE_TOKENS
CPU_RUNNING = 16


@dataclass(frozen=True)
class Launch:
    """How to start one replica's engine.

    Attributes:
        parallelism: how the model is divided over `gpus` GPUs on `nodes` nodes.
        copies: caches of their own, between which requests are divided.
        max_model_len: longest context, in tokens.
        max_running: requests that run at once, in the whole replica.
        pages: of 256 tokens, in each copy's cache; 0: the engine's choice.
        snapshots: prefix states kept in each copy; 0: the engine's choice.
        sequences: of `max_model_len` that the whole replica holds at once: what this buys.
        target_inflight: requests at which the replica is well filled.
        weights_bytes: to read before it serves, of the whole model.
    """

    engine: EngineName
    device: str
    parallelism: Parallelism
    gpus: int
    nodes: int
    copies: int
    max_model_len: int
    max_running: int
    kv_cache_dtype: KVFormat
    draft_tokens: int
    utilization: float
    pages: int
    snapshots: int
    sequences: float
    target_inflight: int
    weights_bytes: int
    extra: tuple[str, ...] = ()

    @property
    def max_running_per_copy(self) -> int:
        """Requests that run at once on one copy of the cache."""
        return ceil(self.max_running / self.copies)


def model_of(configuration: GPUConfiguration) -> Geometry:
    """Return the model a configuration is for: the tiny one on CPUs, else V4-Flash."""
    return TINY if configuration.architecture == "cpu" else V4_FLASH


def plan_launch(
    engine: EngineSpec,
    configuration: GPUConfiguration,
    *,
    weights_bytes: int = 0,
    model: Geometry | None = None,
    measured: CacheSize | None = None,
) -> Launch:
    """Return how to start `engine` on a configuration.

    Args:
        weights_bytes: size of all files; 0: the model's own, derived.
        model: its shapes; None: what the configuration is for.
        measured: cache sizes that the engine itself told; they replace theory.

    Raises:
        Refused: the engine cannot run there.
        DoesNotFit: weights, or a sequence of the asked length, exceed the memory.
    """
    model = model or model_of(configuration)
    support = SUPPORT[engine.name]
    parallelism = resolve(engine, configuration, model)
    cache = measured or support.measured or cache_size(model, engine.kv_cache_dtype)
    room = _room(engine, configuration, model, support, parallelism)
    on_cpu = configuration.architecture == "cpu"
    longest = CPU_CONTEXT if on_cpu else model.max_positions
    max_model_len = engine.max_model_len or _longest_context(room, cache, longest)
    room.require(cache, max_model_len, f"{engine.name} on {configuration.id}")
    running = _running(engine, room, cache, max_model_len, support.most_running, on_cpu)
    pages, snapshots = (0, 0)
    if engine.name == "flash" and not on_cpu:
        pages, snapshots = _pages(room, cache, ceil(running / room.copies))
    return Launch(
        engine=engine.name,
        device="cpu" if on_cpu else "cuda",
        parallelism=parallelism,
        gpus=configuration.count,
        nodes=configuration.nodes,
        copies=room.copies,
        max_model_len=max_model_len,
        max_running=running,
        kv_cache_dtype=engine.kv_cache_dtype,
        draft_tokens=engine.draft_tokens,
        utilization=support.utilization,
        pages=pages,
        snapshots=snapshots,
        sequences=room.sequences(cache, max_model_len),
        target_inflight=running,
        weights_bytes=weights_bytes or total_bytes(model),
        extra=tuple(engine.arguments),
    )


def _room(
    engine: EngineSpec,
    configuration: GPUConfiguration,
    model: Geometry,
    support: EngineSupport,
    parallelism: Parallelism,
) -> Budget:
    on_cpu = configuration.architecture == "cpu"
    return budget(
        model,
        parallelism,
        configuration.count,
        memory_gib=configuration.memory_gib,
        utilization=support.utilization,
        overhead_gib=0.0 if on_cpu else support.overhead_gib,
        form=support.form,
        mtp=engine.draft_tokens > 0,
    )


def _longest_context(room: Budget, cache: CacheSize, longest: int) -> int:
    """The longest power of two of which each copy holds several; at worst one of the shortest."""
    tokens = longest
    while tokens > SHORTEST_CONTEXT:
        if room.sequences(cache, tokens) >= FULL_SEQUENCES * room.copies:
            return tokens
        tokens //= 2
    return tokens


def _running(
    engine: EngineSpec,
    room: Budget,
    cache: CacheSize,
    max_model_len: int,
    most_per_copy: int,
    on_cpu: bool,
) -> int:
    if engine.max_running is not None:
        return engine.max_running
    if on_cpu:
        return CPU_RUNNING * room.copies
    held = floor(room.sequences(cache, min(TYPICAL_TOKENS, max_model_len)) / room.copies)
    return room.copies * max(1, min(held, most_per_copy))


def _pages(room: Budget, cache: CacheSize, running_per_copy: int) -> tuple[int, int]:
    """Pages and snapshots that fill what the running sequences' own states leave of one GPU."""
    free = room.cache_bytes - running_per_copy * cache.per_sequence
    page_bytes = PAGE_TOKENS * cache.per_token
    snapshots_a_page = PAGE_TOKENS / TOKENS_PER_SNAPSHOT
    pages = floor(free / (page_bytes + snapshots_a_page * cache.per_snapshot))
    if pages < 1:
        raise DoesNotFit(
            f"the states of {running_per_copy} running sequences leave no room for their tokens",
            missing_gib=(page_bytes - free) / 2**30,
        )
    return pages, max(1, floor(pages * snapshots_a_page))
