"""Attention's output, rotated back and mixed group by group."""

import torch

from worker.kernels.reference.rope import rotate_


def project_output(out: torch.Tensor, angles: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[T, G * O] of `out` [T, H, D], whose last channels are first turned back by `angles` [T, r],
    in place, and `weight` [G, O, H / G * D]: consecutive heads are a group."""
    rotate_(out, angles.conj())
    groups = out.reshape(len(out), len(weight), weight.shape[2])  # [T, G, H / G * D]
    return torch.einsum("tgi,goi->tgo", groups, weight).flatten(1)
