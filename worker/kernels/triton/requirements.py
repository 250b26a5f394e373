"""What the Triton backend needs of a device and of a model. `worker.kernels.load` asks before it
hands the backend out, so that nothing is found out in the middle of a request."""

import sys
from collections.abc import Iterable
from types import ModuleType

import triton

from worker.config import ModelConfig
from worker.kernels.devices import HOPPER, compute_capability


def device_refusal(device: str) -> str | None:
    """Why kernels cannot run on `device`, if so. Triton's interpreter runs them on any."""
    if triton.knobs.runtime.interpret:
        return None
    found = compute_capability(device)
    if found is None:
        return f"it needs a CUDA device, not {device!r}"
    if found < HOPPER:
        least = ".".join(map(str, HOPPER))
        return f"it needs compute capability {least} or above, not {found[0]}.{found[1]}"
    return None


def model_refusals(backend: ModuleType, config: ModelConfig) -> Iterable[str]:
    """Each operation of `backend` that cannot run a model of this geometry, and why: what its file
    says in `unsupported(config)`, where it has that."""
    for operation in backend.__all__:
        file = sys.modules[getattr(backend, operation).__module__]
        reason = file.unsupported(config) if hasattr(file, "unsupported") else None
        if reason is not None:
            yield f"{operation}: {reason}"
