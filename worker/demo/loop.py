"""The training loop: batches in, a state that learns. `worker.demo.train` is its command.

Rates rise for some steps, stay, and fall to zero in the last part, in which weights go through the
checkpoint's forms. A run is as long as its steps, if they are given, and then a function of its
seed alone; else as long as its minutes: where its last part begins is decided once and remembered.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from worker.demo.batches import Batch, Candidates, Packed, on_device
from worker.demo.losses import Losses, losses
from worker.demo.optimiser import step as descend
from worker.demo.parameters import STEERED, initial, prepared
from worker.demo.presets import Preset
from worker.demo.state import TrainingState
from worker.demo.vocabulary import frozen_rows, hash_table


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did: mean losses in nats, the rate's share of the plateau's."""

    step: int
    loss: float
    draft: float
    draft_hits: float
    index: float
    norm: float
    rate: float
    tokens: int
    seconds: float
    tasks: dict[str, float]


def begin(name: str, preset: Preset, known: list[int], seed: int) -> TrainingState:
    """The state before the first step."""
    rows = frozen_rows(preset.model)[torch.tensor(known, dtype=torch.long)]
    return TrainingState(name, seed, known, initial(preset.model, rows, seed))


def candidates(state: TrainingState, preset: Preset, device: str) -> Candidates:
    """The vocabulary of a run, on its device."""
    known = torch.tensor(state.known, dtype=torch.long)
    place = torch.full((preset.model.vocab_size,), -1, dtype=torch.long)
    place[known] = torch.arange(len(known))
    frozen, table = frozen_rows(preset.model), hash_table(preset.model)
    return Candidates(*(t.to(device) for t in (known, place, frozen, table)))


def train(
    state: TrainingState,
    preset: Preset,
    vocabulary: Candidates,
    batches: Iterator[tuple[int, int, Packed]],
    *,
    compute: torch.dtype,
    told: Callable[[Progress], None],
) -> None:
    """Descend until the run's last step. `batches` yields chunk and batch numbers from the state's
    on, with what they hold. `told` is called after every step, with the state as it is to be
    kept."""
    for tensor in state.tensors.values():
        tensor.requires_grad_()
    with _sums_in_order(state):
        while state.last_step is None or state.step < state.last_step:
            begun = time.monotonic()
            chunk, number, rows = next(batches)
            batch = on_device(
                rows,
                vocabulary,
                preset.model,
                preset.sampled_rows,
                seed=_seed(state, chunk, number),
            )
            found, norm, share = _step(state, preset, batch, compute)
            state.chunk, state.batch = chunk, number + 1
            state.step += 1
            state.tokens += batch.tokens
            spent = time.monotonic() - begun
            state.seconds += spent
            _plan(state, preset)
            told(_progress(state, batch, found, norm, share, spent))


@contextmanager
def _sums_in_order(state: TrainingState) -> Iterator[None]:
    """On a CPU, have threads add up gradients in an order of their own number alone."""
    before = torch.are_deterministic_algorithms_enabled()
    on_cpu = all(tensor.device.type == "cpu" for tensor in state.tensors.values())
    torch.use_deterministic_algorithms(before or on_cpu)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def share_of_rate(state: TrainingState, preset: Preset) -> float:
    """Of the plateau's rates, at the state's step."""
    rising = min(1.0, (state.step + 1) / preset.warmup_steps)
    if state.decay_from is None or state.last_step is None or state.step < state.decay_from:
        return rising
    falling = (state.last_step - state.step) / (state.last_step - state.decay_from)
    return min(rising, falling)


def _step(
    state: TrainingState, preset: Preset, batch: Batch, compute: torch.dtype
) -> tuple[Losses, torch.Tensor, float]:
    quantised = state.decay_from is not None and state.step >= state.decay_from
    weights = prepared(
        state.tensors, preset.model, batch.frozen, compute=compute, quantised=quantised
    )
    found = losses(
        weights,
        preset.model,
        batch.layout,
        batch.targets,
        want_draft=state.step % preset.draft_every == 0,
        want_index=state.step % preset.index_every == 0,
    )
    found.total(preset.draft_weight, preset.index_weight).backward()  # type: ignore[no-untyped-call]
    share = share_of_rate(state, preset)
    norm = descend(
        state.optimiser,
        state.tensors,
        matrix_rate=share * preset.matrix_rate,
        rate=share * preset.rate,
        clip=preset.clip,
    )
    with torch.no_grad():  # balance: the bias of experts with more than their share falls
        for prefix, load in found.load.items():
            bias = state.tensors[prefix + STEERED]
            bias.add_(preset.bias_rate * (load.mean() - load).sign())
    return found, norm, share


def _plan(state: TrainingState, preset: Preset) -> None:
    """Decide, once, when rates begin to fall: when so much of the minutes is over."""
    if state.last_step is not None or state.seconds < 60 * preset.minutes * (
        1 - preset.decay_share
    ):
        return
    state.decay_from = state.step
    state.last_step = max(state.step + 1, round(state.step / (1 - preset.decay_share)))


def _seed(state: TrainingState, chunk: int, number: int) -> int:
    return (state.seed * 1_000_003 + chunk) * 1_000_003 + number


def fixed(state: TrainingState, preset: Preset, steps: int) -> None:
    """Plan a run of so many steps."""
    state.last_step = steps
    state.decay_from = round(steps * (1 - preset.decay_share))


def _progress(
    state: TrainingState,
    batch: Batch,
    found: Losses,
    norm: torch.Tensor,
    share: float,
    seconds: float,
) -> Progress:
    each = found.each
    sums = torch.zeros(len(batch.names), device=each.device).index_add_(0, batch.tasks, each)
    counts = torch.bincount(batch.tasks, minlength=len(batch.names)).clamp(min=1)
    means = (sums / counts).tolist()
    return Progress(
        step=state.step,
        loss=float(each.mean()),
        draft=float(found.draft.detach()),
        draft_hits=float(found.draft_hits.detach()),
        index=float(found.index.detach()),
        norm=float(norm),
        rate=share,
        tokens=batch.tokens,
        seconds=seconds,
        tasks=dict(zip(batch.names, means, strict=True)),
    )
