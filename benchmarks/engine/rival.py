"""transformers' DeepSeek-V4 on the same checkpoint: what one would run without this engine."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from worker.config import ModelConfig
from worker.model.tiny import official_config

KINDS = {
    0: "sliding_attention",
    4: "compressed_sparse_attention",
    128: "heavily_compressed_attention",
}


def load_rival(directory: Path, config: ModelConfig) -> Any:
    """The model in float32 with all of transformers' defaults, but for the end-of-sequence token:
    like ours it is to go on to the last token asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import DeepseekV4Config, DeepseekV4ForCausalLM, FineGrainedFP8Config
        from transformers.utils import logging

        logging.disable_progress_bar()
        raw: dict[str, Any] = official_config(config)
        ratios = config.compress_ratios[: config.num_hidden_layers]
        del raw["compress_ratios"]
        model = DeepseekV4ForCausalLM.from_pretrained(
            directory,
            config=DeepseekV4Config(**raw, layer_types=[KINDS[ratio] for ratio in ratios]),
            quantization_config=FineGrainedFP8Config(
                dequantize=True, scale_fmt="ue8m0", expert_dtype="fp4"
            ),
            dtype=torch.bfloat16,  # exact: four or eight bits times a power of two
        )
    model.generation_config.eos_token_id = None
    return model.float().eval()


@torch.inference_mode()
def generate_serially(model: Any, prompts: Iterable[tuple[list[int], int]]) -> list[list[int]]:
    """Greedy answers of (prompt, token count), one request after the other: it can neither pad
    nor batch requests of different lengths."""
    answers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prompt, count in prompts:
            ids = torch.tensor([prompt])
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
            )
            answers.append(output[0, len(prompt) :].tolist())
    return answers
