"""A training run's whole state, and its file: what it goes on from, to the same bits."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from worker.demo.optimiser import OptimiserState
from worker.errors import ConfigError

FILE = "training.pt"


@dataclass(slots=True)
class TrainingState:
    """`known` are the ids whose rows learn, ascending. `chunk` and `batch` come next.
    `decay_from` and `last_step` are None until the plateau's end is decided."""

    preset: str
    seed: int
    known: list[int]
    tensors: dict[str, torch.Tensor]
    optimiser: OptimiserState = field(default_factory=OptimiserState)
    step: int = 0
    chunk: int = 0
    batch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    decay_from: int | None = None
    last_step: int | None = None


def save(state: TrainingState, directory: Path) -> None:
    """Replace the run's file at once: a reader, or a crash, meets the old one or the new one."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = {name: getattr(state, name) for name in TrainingState.__slots__}
    raw["tensors"] = {name: tensor.detach() for name, tensor in state.tensors.items()}
    raw["optimiser"] = asdict(state.optimiser)
    scratch = directory / f".{FILE}"
    torch.save(raw, scratch)
    os.replace(scratch, directory / FILE)


def load(directory: Path, device: str) -> TrainingState:
    """Read a run's file. Raises ConfigError if there is none."""
    path = directory / FILE
    if not path.exists():
        raise ConfigError(f"{path} does not exist; there is nothing to resume")
    raw: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return TrainingState(**{**raw, "optimiser": OptimiserState(**raw["optimiser"])})
