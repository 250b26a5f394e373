"""The scaling law: how many replicas, from numbers alone, so that each decision can be replayed.

wanted = max over signals of ceil(load / what one replica carries) + warm, between min and max.
Loading replicas count. Up at once; down to the most that was wanted in the stabilisation window,
one replica a cold start, and never while something loads, waits or is missing.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from controlplane.crd.inference import Decision

_EPSILON = 1e-9  # a load of exactly n replicas is not n + 1


@dataclass(frozen=True)
class Inputs:
    """All the law looks at. Flags are 0 or 1; None: unknown, or no such target.

    Attributes:
        before: replicas wanted until now.
        fixed: the spec's fixed number.
        closed: it is stopped, or outside of its windows.
        frozen: a rollout is under way.
        minimum: the greatest of min and the schedules' minimums.
        maximum: the least of max and what the budget allows.
        warm: replicas beyond the need.
        load: requests held and in flight, averaged over the panic window.
        held: requests that wait now.
        target_inflight: requests one replica carries.
        kv: occupied shares of all caches, summed.
        kv_full: the share at which another replica is wanted.
        ttft_ms, ttft_target_ms, itl_ms, itl_target_ms: p95 and target.
        loading: replicas that hold GPUs and do not serve yet.
        complete: all signals were there.
        window_max: the most that was wanted in the stabilisation window; None: not all of it seen.
        idle: without any request for `idle_seconds`.
        since_step_seconds: since the number last changed.
        cold_start_seconds: from reservation to serving.
    """

    before: float
    fixed: float | None = None
    closed: float = 0
    frozen: float = 0
    minimum: float = 0
    maximum: float = 1
    warm: float = 0
    load: float | None = None
    held: float = 0
    target_inflight: float = 1
    kv: float | None = None
    kv_full: float = 0.7
    ttft_ms: float | None = None
    ttft_target_ms: float | None = None
    itl_ms: float | None = None
    itl_target_ms: float | None = None
    loading: float = 0
    complete: float = 1
    window_max: float | None = None
    idle: float = 0
    since_step_seconds: float = 0
    cold_start_seconds: float = 180


class Ask(NamedTuple):
    """What one signal wants."""

    replicas: int
    signal: str
    value: float


class Outcome(NamedTuple):
    """What is wanted, and what asked for it."""

    after: int
    signal: str
    value: float
    why: str


def asks(inputs: Inputs) -> list[Ask]:
    """Return what each signal that is known wants; the first of equals is named in decisions."""
    wanted = [Ask(int(inputs.minimum), "min", inputs.minimum)]
    if inputs.load is not None:
        needed = math.ceil(inputs.load / inputs.target_inflight - _EPSILON)
        needed = max(needed, 1 if inputs.held else 0)
        wanted.append(Ask(needed + int(inputs.warm), "inflight", inputs.load))
    elif inputs.held:
        wanted.append(Ask(1 + int(inputs.warm), "held", inputs.held))
    if inputs.kv is not None:
        needed = math.ceil(inputs.kv / inputs.kv_full - _EPSILON)
        wanted.append(Ask(needed + int(inputs.warm), "kv", inputs.kv))
    wanted += _latency(inputs, "ttft", inputs.ttft_ms, inputs.ttft_target_ms)
    wanted += _latency(inputs, "itl", inputs.itl_ms, inputs.itl_target_ms)
    return wanted


def _latency(inputs: Inputs, signal: str, value: float | None, target: float | None) -> list[Ask]:
    """Too slow is not a count: one more a cold start, after those on their way have come."""
    if value is None or target is None or value <= target:
        return []
    waited = inputs.since_step_seconds >= inputs.cold_start_seconds and not inputs.loading
    return [Ask(int(inputs.before) + (1 if waited else 0), signal, value)]


def recommended(inputs: Inputs) -> Ask:
    """Return what the signals want now, within the bounds; without all of them, no less than is."""
    most = max(asks(inputs), key=lambda ask: ask.replicas)
    if not inputs.complete and most.replicas < inputs.before:
        most = Ask(int(inputs.before), "missing", 0)
    return most._replace(replicas=min(most.replicas, int(inputs.maximum)))


def law(inputs: Inputs) -> Outcome:
    """Return how many replicas are wanted now."""
    before = int(inputs.before)
    if inputs.closed:
        return Outcome(0, "closed", 1, "stopped, or outside of its windows")
    if inputs.fixed is not None:
        return Outcome(int(inputs.fixed), "replicas", inputs.fixed, "the spec's fixed number")
    if before > inputs.maximum:
        return Outcome(int(inputs.maximum), "max", inputs.maximum, "max and budget allow no more")
    if inputs.frozen:
        return Outcome(before, "frozen", 1, "a rollout is under way")
    ask = recommended(inputs)
    if ask.replicas > before:
        return Outcome(ask.replicas, ask.signal, ask.value, f"{ask.signal} wants {ask.replicas}")
    held_back = _held_back(inputs, ask)
    if held_back:
        return Outcome(before, ask.signal, ask.value, held_back)
    if before == 1:
        return Outcome(0, "idle", 1, "no request for idle_seconds")
    after = max(ask.replicas, int(inputs.window_max or 0), before - 1)
    return Outcome(after, ask.signal, ask.value, f"no more than {after} wanted for a whole window")


def _held_back(inputs: Inputs, ask: Ask) -> str:
    """Return why nothing may go now; empty: one replica may."""
    if not inputs.complete or inputs.load is None:
        return "signals are missing"
    if inputs.loading or inputs.held:
        return "replicas are loading, or requests wait"
    if ask.replicas >= inputs.before:
        return "as wanted"
    if inputs.before == 1:  # the last one has a window of its own
        return "" if inputs.idle else "not idle for long enough"
    if inputs.since_step_seconds < inputs.cold_start_seconds:
        return "one step a cold start"
    if inputs.window_max is None:
        return "the window has not been seen whole"
    return "wanted lately" if inputs.window_max >= inputs.before else ""


def record(inputs: Inputs, outcome: Outcome, at: str) -> Decision:
    """Return a change as it is kept in the status, with all of its inputs."""
    numbers = {word: value for word, value in asdict(inputs).items() if value is not None}
    return Decision(
        at=at,
        before=int(inputs.before),
        after=outcome.after,
        signal=outcome.signal,
        value=round(outcome.value, 3),
        why=outcome.why,
        inputs=numbers,
    )


def replay(decision: Decision) -> int:
    """Return what the law makes of a recorded decision's inputs: the same number, always."""
    known = {field.name for field in fields(Inputs)}
    return law(Inputs(**{k: v for k, v in decision.inputs.items() if k in known})).after
