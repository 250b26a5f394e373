"""A dense layer without bias, with training's activation quantisation where it had one."""

from dataclasses import dataclass

import torch

from worker.kernels.dense import product
from worker.kernels.load import KernelBackend


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T with W [out, in] in the compute dtype. `quantise` names the backend that rounds
    the activations to e4m3 first; None leaves them alone."""

    weight: torch.Tensor
    quantise: KernelBackend | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.quantise is not None:
            x = self.quantise.quantise_activation(x)
        return product(x, self.weight)
