"""Attention's output, rotated back and mixed group by group.

The rotation touches 64 of 512 channels, so it is a pass of its own, and the product is cuBLAS's:
a product that turned its operand while loading would save an eighth of that operand's traffic.
"""

import torch

from worker.kernels.triton.rope import rotate_


def project_output(out: torch.Tensor, angles: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[T, G * O] of `out` [T, H, D], whose last channels are first turned back by `angles` [T, r],
    in place, and `weight` [G, O, H / G * D]: consecutive heads are a group."""
    rotate_(out, angles.conj())
    groups = out.reshape(len(out), len(weight), weight.shape[2])  # [T, G, H / G * D]
    mixed = out.new_empty(len(out), *weight.shape[:2])  # [T, G, O]
    # Views on either side: nothing is copied to bring the groups to the front.
    torch.bmm(groups.transpose(0, 1), weight.transpose(1, 2), out=mixed.transpose(0, 1))
    return mixed.flatten(1)
