"""What a device can do, without which no kernels are chosen. Loading a backend asks it."""

import torch

HOPPER = (9, 0)  # compute capability of H100 and H200


def compute_capability(device: str) -> tuple[int, int] | None:
    """Of a CUDA device; None of any other."""
    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.get_device_capability(device)


def is_hopper_or_later(device: str) -> bool:
    """Whether kernels written for Hopper can run there."""
    found = compute_capability(device)
    return found is not None and found >= HOPPER
