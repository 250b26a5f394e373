"""A checkpoint's tensors as the trainable forward takes them."""

import re
from pathlib import Path

import torch

from worker.config import ModelConfig
from worker.model.loader import load_weights

EXPERT = re.compile(r"(.*\.ffn\.experts)\.(\d+)\.(w[123])\.weight")


def trainable(directory: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Official names in float32, experts stacked, `embed` the whole vocabulary."""
    loaded = load_weights(directory, config, torch.float32, mtp=True, show_progress=False)
    weights: dict[str, torch.Tensor] = {"embed": loaded["embed.weight"]}
    stacks: dict[str, list[torch.Tensor]] = {}
    for name, tensor in loaded.items():
        match = EXPERT.fullmatch(name)
        if match:
            stacks.setdefault(f"{match[1]}.{match[3]}", []).append(tensor)
        else:
            weights[name] = tensor
    return weights | {name: torch.stack(stack) for name, stack in stacks.items()}


def hashed_experts(
    weights: dict[str, torch.Tensor], config: ModelConfig, ids: torch.Tensor
) -> torch.Tensor:
    """[hash layers, B * T, k] experts of ids [B, T]."""
    layers = range(config.num_hash_layers)
    tables = [weights[f"layers.{i}.ffn.gate.tid2eid"] for i in layers]
    return torch.stack([table[ids.flatten()] for table in tables])
