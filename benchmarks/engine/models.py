"""The models that are measured, written once with random weights and kept between runs."""

from dataclasses import replace
from pathlib import Path

import torch

from worker.config import EngineConfig, ModelConfig
from worker.model.tiny import TINY, write_checkpoint
from worker.runner.model_runner import ModelRunner

FLASH = replace(
    TINY,
    hidden_size=4096,
    num_hidden_layers=43,
    num_attention_heads=64,
    head_dim=512,
    qk_rope_head_dim=64,
    q_lora_rank=1024,
    o_groups=8,
    o_lora_rank=1024,
    compress_ratios=(0, 0, *(4, 128) * 20, 4, 0),
    index_n_heads=64,
    index_head_dim=128,
    index_topk=512,
    n_routed_experts=256,
    num_experts_per_tok=6,
    moe_intermediate_size=2048,
)

# Flash's own widths in as few layers as show each kind once: window, CSA, HCA; hash and learned
# routing. About 1.0 billion parameters, 4 GB in float32.
SLIM = replace(
    FLASH,
    vocab_size=8_192,
    num_hidden_layers=3,
    num_hash_layers=1,
    compress_ratios=(0, 4, 128),
    n_routed_experts=8,
    num_nextn_predict_layers=0,
)
MODELS = {"tiny": TINY, "slim": SLIM}


def model_directory(name: str, root: Path) -> Path:
    """Where the model lies under `root`; it is written first when it is not there yet."""
    directory = root / name
    if not directory.exists():
        write_checkpoint(directory, MODELS[name], seed=0)
    elif ModelConfig.from_dir(directory) != MODELS[name]:
        raise SystemExit(f"{directory} holds another model; remove it and run again")
    return directory


def noisy_runner(directory: Path, engine: EngineConfig) -> ModelRunner:
    """A runner whose caches hold noise, as if every page and slot had been computed: the time of
    a step does not depend on what they hold."""
    runner = ModelRunner(directory, engine)
    generator = torch.Generator().manual_seed(0)
    for layer in runner.kv.layers:
        layer.window.data[:-1].normal_(generator=generator)
        for entries in (layer.entries, layer.index):
            if entries is not None:
                entries.pages.data[:-1].normal_(generator=generator)
                entries.tail.normal_(generator=generator)
    return runner
