"""The parameters: how they begin, and what a forward makes of them.

Names, shapes and stored forms come from the checkpoint's own table; the experts of a layer are one
tensor here, `rows` are the vocabulary rows that learn, and what is not trained (hash tables, the
rest of the vocabulary) is in `worker.demo.vocabulary`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from worker.config import ModelConfig
from worker.demo.copying import begin_copying
from worker.demo.rounding import rounded
from worker.demo.vocabulary import common_direction
from worker.model.checkpoint import ROUTED_EXPERT, expected_tensors

ROWS = "rows"
UNTRAINED = re.compile(r"embed\.weight|head\.weight|.*\.tid2eid|.*\.scale")
STEERED = "gate.bias"  # moved by the balance of the experts, not by a gradient
GAIN_OF_OUTPUTS = 0.2  # sublayers begin as whispers beside their streams
HC_SCALE = 0.1


@dataclass(frozen=True, slots=True)
class Parameter:
    """One trained tensor: its shape, and its form in the checkpoint."""

    shape: tuple[int, ...]
    form: str  # a safetensors dtype


def table(config: ModelConfig, rows: int) -> dict[str, Parameter]:
    """Every trained tensor by name, in a stable order; `rows` of the vocabulary learn."""
    found = {ROWS: Parameter((rows, config.hidden_size), "BF16")}
    for name, spec in expected_tensors(config).items():
        if UNTRAINED.fullmatch(name):
            continue
        routed = ROUTED_EXPERT.fullmatch(name)
        if routed is None:
            found[name] = Parameter(spec.shape, spec.dtype)
        elif int(routed[2]) == 0:
            shape = (config.n_routed_experts, *spec.unpacked_shape)
            found[f"{routed[1]}.{routed[3]}"] = Parameter(shape, spec.dtype)
    return found


def initial(config: ModelConfig, rows: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Float32 tensors to begin with; `rows` [R, D] are those of the vocabulary that learn."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in table(config, len(rows)).items():
        noise = torch.randn(parameter.shape, generator=generator)
        tensors[name] = _begun(name, parameter.shape, noise, config)
    tensors[ROWS] = rows.float()
    begin_copying(tensors, config, common_direction(config.hidden_size), generator)
    return tensors


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor maps vectors to vectors, so that its update may be made orthogonal."""
    if len(shape) < 2 or name == ROWS or "hc_" in name:
        return False
    return not name.endswith((".ape", ".gate.weight"))


def prepared(
    tensors: Mapping[str, torch.Tensor],
    config: ModelConfig,
    frozen: torch.Tensor,  # [S, D] rows of this batch that do not learn
    *,
    compute: torch.dtype,
    quantised: bool,
) -> dict[str, torch.Tensor]:
    """What a forward reads: matrices and candidate rows in `compute`, `quantised` through the
    checkpoint's forms with gradients straight through; everything else in float32."""
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in table(config, len(tensors[ROWS])).items():
        tensor = tensors[name]
        if quantised:
            tensor = rounded(tensor, parameter.form)
        if name == ROWS:
            weights["embed"] = torch.cat((tensor.to(compute), frozen.to(compute)))
        else:
            weights[name] = tensor.to(compute) if is_matrix(name, parameter.shape) else tensor
    return weights


def _begun(
    name: str, shape: tuple[int, ...], noise: torch.Tensor, config: ModelConfig
) -> torch.Tensor:
    if "norm" in name:
        # Logits of unit variance: rows of the vocabulary are `hidden_size` long.
        last = name in ("norm.weight", "mtp.0.norm.weight")
        return torch.full(shape, config.hidden_size**-0.5 if last else 1.0)
    if name.endswith("_scale"):
        return torch.full(shape, HC_SCALE)
    if name.endswith("_base"):
        return _streams(shape, noise, config.hc_mult)
    if len(shape) == 1:  # sinks and biases
        return torch.zeros(shape)
    gain = GAIN_OF_OUTPUTS if name.endswith(("wo_b.weight", "w2.weight", ".w2")) else 1.0
    if name.endswith(".ape"):
        return 0.1 * noise
    scale: float = gain * shape[-1] ** -0.5
    return noise * scale


def _streams(shape: tuple[int, ...], noise: torch.Tensor, n: int) -> torch.Tensor:
    """Streams begin apart, or nothing would ever tell them apart; each is kept as it is."""
    base = 0.5 * noise
    if len(base) > n:
        base[2 * n :] = 4.0 * torch.eye(n).flatten()
    return base
