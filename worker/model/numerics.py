"""The arithmetic a model runs in, by the name given in `EngineConfig.dtype`.

    float32   every product in float32: the oracle that other implementations are compared with
    bfloat16  weights and activations in bfloat16, no activation or cache quantisation
    official  bfloat16, with the quantisation V4-Flash was trained with: e4m3 activations before
              FP8 and FP4 linears, FP4 index queries and keys, FP8 window and compressed entries

Router, compressor, hyper-connections, softmaxes and the output head are float32 in all of them.
"""

from dataclasses import dataclass

import torch

from worker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Numerics:
    """`compute`: dtype of dense weights, activations and caches. `quantise`: simulate training's
    quantisation of activations and caches."""

    compute: torch.dtype
    quantise: bool


NUMERICS: dict[str, Numerics] = {
    "float32": Numerics(torch.float32, quantise=False),
    "bfloat16": Numerics(torch.bfloat16, quantise=False),
    "official": Numerics(torch.bfloat16, quantise=True),
}


def numerics(name: str) -> Numerics:
    """Look up a name. Raises ConfigError that lists the known names."""
    if name not in NUMERICS:
        raise ConfigError(f"unknown dtype {name!r}; known: {', '.join(NUMERICS)}")
    return NUMERICS[name]
