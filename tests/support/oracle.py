"""Hugging Face transformers' deepseek_v4, an independent implementation, loading the same
official-format checkpoint with its own reader; and what it takes to compare with it."""

import gc
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.model.tiny import official_config, write_checkpoint

TOLERANCE = 1e-5  # largest error over largest logit
KINDS = {0: "sliding_attention", 4: "compressed_sparse_attention"}


def oracle(directory: Path, config: ModelConfig) -> torch.nn.Module:
    """transformers' model in float32; its quantiser dequantises exactly through bfloat16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import DeepseekV4Config, DeepseekV4ForCausalLM, FineGrainedFP8Config

        raw = official_config(config)
        ratios = raw.pop("compress_ratios")
        layers = ratios[: config.num_hidden_layers]  # type: ignore[index]
        # Its parser knows the ratios 0, 4 and 128 only; layer kinds and rates say any.
        hf_config = DeepseekV4Config(
            **raw,
            layer_types=[KINDS.get(r, "heavily_compressed_attention") for r in layers],
            compress_rates={
                "compressed_sparse_attention": CSA_RATIO,
                "heavily_compressed_attention": max([8, *layers]),
            },
            attn_implementation="eager",
        )
        quantisation = FineGrainedFP8Config(dequantize=True, scale_fmt="ue8m0", expert_dtype="fp4")
        model = DeepseekV4ForCausalLM.from_pretrained(
            directory, config=hf_config, quantization_config=quantisation, dtype=torch.bfloat16
        )
    return model.float().eval()


@torch.no_grad()
def oracle_logits(model: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    """[T, vocab] of one whole prefill."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(torch.tensor([token_ids])).logits[0]


@contextmanager
def model_on_disk(config: ModelConfig, seed: int) -> Iterator[Path]:
    with TemporaryDirectory() as parent:
        directory = Path(parent) / "model"
        write_checkpoint(directory, config, seed=seed)
        yield directory
    gc.collect()


def tokens(count: int, vocab: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(vocab), k=count)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[T] largest error of each row over the largest logit of all."""
    return (ours - theirs).abs().amax(-1) / theirs.abs().max()
