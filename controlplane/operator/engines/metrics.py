"""An engine's load, read from its metrics in Prometheus' text format."""

import math
import re
from dataclasses import dataclass

_REST = r"(?:\{.*\})?\s+(\S+)"


@dataclass(frozen=True)
class EngineMetrics:
    """Missing is not zero: None is what the engine did not tell.

    Attributes:
        running: requests it works on, all its ranks together.
        waiting: requests in its own queue.
        kv_usage: occupied share of its cache, 0 to 1, the mean of its ranks.
    """

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None


def vllm_metrics(text: str) -> EngineMetrics:
    """Return the load that vLLM and our own engine tell; vLLM tells it once for each rank."""
    return _load(
        text,
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        usage="vllm:kv_cache_usage_perc",
    )


def sglang_metrics(text: str) -> EngineMetrics:
    """Return the load that SGLang tells, once for each scheduler."""
    return _load(
        text,
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        usage="sglang:token_usage",
    )


def _load(text: str, *, running: str, waiting: str, usage: str) -> EngineMetrics:
    found: dict[str, list[float]] = {running: [], waiting: [], usage: []}
    # An engine's other metrics, hundreds of lines, are not even looked at.
    for match in re.finditer(rf"^({running}|{waiting}|{usage}){_REST}", text, re.MULTILINE):
        value = _finite(match.group(2))
        if value is not None:
            found[match.group(1)].append(value)
    return EngineMetrics(
        running=round(sum(found[running])) if found[running] else None,
        waiting=round(sum(found[waiting])) if found[waiting] else None,
        kv_usage=sum(found[usage]) / len(found[usage]) if found[usage] else None,
    )


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
