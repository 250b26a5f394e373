"""What is timed: an operation at one shape, what it must move and compute, and what it must equal.

Each file of rows builds cases from a kernel backend; the command times them, tests run small ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from worker.kernels.load import KernelBackend


@dataclass(frozen=True, slots=True)
class Case:
    """`ours` and `reference` compute the same, to `tolerance` of the greatest magnitude. Bytes are
    those that must cross the memory bus once; floating-point operations are a multiply or an add.
    `checked` are to be compared instead, where what is timed gives bytes."""

    ours: Callable[[], torch.Tensor]
    reference: Callable[[], torch.Tensor]
    moved_bytes: int
    flops: int
    tolerance: float
    checked: tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]] | None = None

    def error(self) -> float:
        """The greatest difference from the reference over the reference's greatest magnitude."""
        ours, reference = (run().double() for run in self.checked or (self.ours, self.reference))
        return float((ours - reference).abs().max() / reference.abs().max())


Build = Callable[..., Case]  # (backend, device, **sizes)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `unit`: "us" (less is better), "%" of what the device's bandwidth would
    allow, or "TF" per second. `rivals` are packages with a kernel for the same, by import name."""

    number: str
    title: str
    build: Build
    real: Mapping[str, int]
    tiny: Mapping[str, int]
    unit: str
    aim: float
    goal: float
    rivals: tuple[str, ...] = ()

    def case(self, backend: KernelBackend, device: str, *, tiny: bool = False) -> Case:
        """The operands of one size on `device`, random and always the same."""
        torch.manual_seed(0)
        return self.build(backend, device, **(self.tiny if tiny else self.real))


def noise(*shape: int, device: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Normal numbers."""
    return torch.randn(shape, device=device).to(dtype)
