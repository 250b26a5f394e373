"""Which engine runs the model on which GPUs, divided how: what exists, not what would be nice.

`resolve` is asked before anything is planned, so that nobody is recommended a configuration that
the engine cannot start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import EngineName, EngineSpec
from controlplane.planner.geometry import Geometry
from controlplane.planner.memory import CacheSize
from controlplane.planner.refusal import Refused
from controlplane.planner.weights import GIB, Form, Parallelism


@dataclass(frozen=True)
class EngineSupport:
    """What an engine can do with V4-Flash.

    Attributes:
        lacks: GPU families it does not run on, each with what is missing.
        parallelisms: how it divides the model; the first is its own choice.
        several_nodes: whether one replica may span nodes.
        form: how it keeps the weights in memory.
        overhead_gib: of each GPU: context, activations, graphs and communication buffers.
        measured: what its allocator is known to take; None: the derived figure.
    """

    lacks: Mapping[str, str]
    parallelisms: tuple[Parallelism, ...]
    several_nodes: bool
    form: Form
    overhead_gib: float
    measured: CacheSize | None = None
    utilization: float = 0.90
    most_running: int = 64


_NO_AMPERE = "its attention kernels for V4 need Hopper or newer: Ampere has no FP8 units"
# vLLM 0.25 logs 20.4 sequences of 2**20 tokens on 8 B200 under TP8 at 0.95 utilisation with an FP8
# cache: 7.297 GiB each. The same figure reproduces one cloud's whole catalogue.
_VLLM_CACHE = CacheSize(7.297 * GIB / 2**20, 0, 0, derived=False)

SUPPORT: Mapping[EngineName, EngineSupport] = MappingProxyType(
    {
        "flash": EngineSupport(
            lacks={
                "ampere": "its arithmetic is written for Hopper and newer",
                "ada": "its arithmetic is written for Hopper and newer",
                "consumer-blackwell": "its kernels are not tried there",
            },
            parallelisms=("expert",),
            several_nodes=False,
            form=Form.BFLOAT16,  # quantised weights are widened as they are loaded
            overhead_gib=2.5,
        ),
        "vllm": EngineSupport(
            lacks={"ampere": _NO_AMPERE, "ada": _NO_AMPERE, "cpu": "it has no V4 for CPUs"},
            parallelisms=("tensor", "expert", "pipeline"),
            several_nodes=True,
            form=Form.NATIVE,
            overhead_gib=2.5,
            measured=_VLLM_CACHE,
        ),
        "sglang": EngineSupport(
            lacks={
                "ampere": _NO_AMPERE,
                "ada": _NO_AMPERE,
                "consumer-blackwell": "its recipes for V4 list no consumer GPUs",
                "cpu": "it has no V4 for CPUs",
            },
            parallelisms=("tensor", "expert", "pipeline"),
            several_nodes=True,
            form=Form.NATIVE,
            overhead_gib=2.5,
        ),
    }
)


def family(configuration: GPUConfiguration) -> str:
    """Return the GPU family that kernels are written for; consumer Blackwell is one of its own."""
    if configuration.architecture == "blackwell" and configuration.gpu.upper().startswith("RTX"):
        return "consumer-blackwell"
    return configuration.architecture


def resolve(engine: EngineSpec, configuration: GPUConfiguration, model: Geometry) -> Parallelism:
    """Return how `engine` divides `model` over the configuration's GPUs.

    What the engine's spec asks for must be possible; the configuration's own preference gives way
    to what the engine can do.

    Raises:
        Refused: it cannot start there; the message names the missing support.
    """
    support, where = SUPPORT[engine.name], f"{configuration.id} ({configuration.gpu})"
    missing = support.lacks.get(family(configuration))
    if missing:
        raise _impossible(f"{engine.name} does not run on {where}: {missing}")
    if configuration.count % configuration.nodes:
        raise _impossible(
            f"{configuration.id} cannot divide {configuration.count} GPUs "
            f"evenly over {configuration.nodes} nodes"
        )
    if configuration.nodes > 1 and not support.several_nodes:
        raise _impossible(f"{engine.name} runs on one node, {where} has {configuration.nodes}")
    wanted = engine.parallelism or configuration.parallelism
    if wanted in support.parallelisms:
        chosen = wanted
    elif engine.parallelism:
        known = ", ".join(support.parallelisms)
        raise _impossible(f"{engine.name} has no {wanted} parallelism, only: {known}")
    else:
        chosen = support.parallelisms[0]
    _check_division(chosen, configuration.count, model)
    return chosen


def _check_division(parallelism: Parallelism, gpus: int, model: Geometry) -> None:
    if parallelism == "expert" and model.experts % gpus:
        raise _impossible(
            f"expert parallelism over {gpus} GPUs: {gpus} does not divide {model.experts} experts"
        )
    if parallelism == "tensor" and (model.heads % gpus or model.o_groups % gpus):
        raise _impossible(
            f"tensor parallelism over {gpus} GPUs: {gpus} does not divide "
            f"{model.heads} heads and {model.o_groups} output groups"
        )
    if parallelism == "pipeline" and gpus > model.layers:
        raise _impossible(f"a pipeline of {gpus} GPUs is longer than {model.layers} layers")


def _impossible(message: str) -> Refused:
    return Refused(Reason.IMPOSSIBLE_GEOMETRY, message)
