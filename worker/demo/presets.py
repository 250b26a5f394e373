"""The forms of the demo model and of its training, by name. One table; nothing else decides.

Sizes are chosen by measurement (see the folder's README): what decodes fast enough on two CPU
cores, and what the time given teaches.
"""

from dataclasses import dataclass, replace

from worker.config import ModelConfig
from worker.errors import ConfigError
from worker.model.tiny import TINY

# The window reaches over a block of tools, so that names are copied from tokens and not from
# entries of four; entries and HCA carry what is further back.
FULL_MODEL = replace(
    TINY,
    hidden_size=256,
    num_hidden_layers=8,
    num_attention_heads=4,
    head_dim=128,
    qk_rope_head_dim=32,
    q_lora_rank=256,
    o_groups=2,
    o_lora_rank=128,
    sliding_window=512,
    compress_ratios=(0, 0, 4, 128, 4, 128, 4, 0, 0),
    index_n_heads=32,
    index_head_dim=32,
    index_topk=256,
    n_routed_experts=16,
    num_experts_per_tok=2,
    moe_intermediate_size=256,
)
REDUCED_MODEL = replace(
    FULL_MODEL,
    num_hidden_layers=6,
    compress_ratios=(0, 0, 4, 128, 4, 0, 0),
    n_routed_experts=8,
)


@dataclass(frozen=True, slots=True)
class Preset:
    """One training run. `step_tokens` are places in a step's rows, padding among them.
    `known_examples` are counted: rows of tokens that occur in them `least_count` times or more
    learn, `most_known` at most; `sampled_rows` stand for the rest in each softmax. Learning rates
    are those of the plateau: `matrix_rate` for Muon (of the root mean square of an update), `rate`
    for Adam (all else)."""

    model: ModelConfig
    minutes: float
    step_tokens: int
    matrix_rate: float
    rate: float
    known_examples: int = 60_000
    least_count: int = 5
    most_known: int = 12_288
    sampled_rows: int = 2_048
    warmup_steps: int = 50
    decay_share: float = 0.3  # of the time, at its end, with falling rates
    quantised_share: float = 0.3  # of the time, at its end, with quantised weights
    draft_weight: float = 0.5
    draft_every: int = 2  # steps
    index_weight: float = 0.1
    index_every: int = 4  # steps; its target takes an attention of its own
    bias_rate: float = 0.001  # of the routers' balance per step
    clip: float = 1.0


PRESETS: dict[str, Preset] = {
    # One GPU, at most 25 minutes.
    "full": Preset(FULL_MODEL, 24.0, step_tokens=32_768, matrix_rate=0.0005, rate=0.002),
    # Two CPU cores, at most two hours.
    "reduced": Preset(REDUCED_MODEL, 110.0, step_tokens=4_096, matrix_rate=0.0005, rate=0.002),
}


def preset(name: str) -> Preset:
    """Look up a name. Raises ConfigError that lists the known names."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
