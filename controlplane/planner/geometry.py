"""Shapes of V4 models: what memory is derived from. `from_config` reads a model's config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.crd.conditions import Reason
from controlplane.planner.refusal import Refused

MODEL_TYPE = "deepseek_v4"
CSA_RATIO = 4  # layers of this ratio have an indexer; larger ones compress more and have none


@dataclass(frozen=True)
class Geometry:
    """A V4 model. Counts and widths in elements; names as in its config.json.

    Attributes:
        ratios: one number a main layer: how many tokens share a cache entry; 0: a window only.
        streams: residual streams (`hc_mult`).
    """

    name: str
    vocab_size: int
    hidden_size: int
    heads: int
    head_dim: int
    rope_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    window: int
    ratios: tuple[int, ...]
    index_heads: int
    index_dim: int
    index_topk: int
    experts: int
    experts_per_token: int
    expert_width: int
    hash_layers: int
    mtp_layers: int
    max_positions: int
    streams: int = 4

    @property
    def layers(self) -> int:
        """Main layers, without those of multi-token prediction."""
        return len(self.ratios)


V4_FLASH = Geometry(
    name="deepseek-v4-flash",
    vocab_size=129_280,
    hidden_size=4096,
    heads=64,
    head_dim=512,
    rope_dim=64,
    q_lora_rank=1024,
    o_groups=8,
    o_lora_rank=1024,
    window=128,
    ratios=(0, 0, *(4, 128) * 20, 4),
    index_heads=64,
    index_dim=128,
    index_topk=512,
    experts=256,
    experts_per_token=6,
    expert_width=2048,
    hash_layers=3,
    mtp_layers=1,
    max_positions=1_048_576,
)
V4_PRO = Geometry(
    name="deepseek-v4-pro",
    vocab_size=129_280,
    hidden_size=7168,
    heads=128,
    head_dim=512,
    rope_dim=64,
    q_lora_rank=1536,
    o_groups=16,
    o_lora_rank=1024,
    window=128,
    ratios=(128, 128, *(4, 128) * 29, 4),
    index_heads=64,
    index_dim=128,
    index_topk=1024,
    experts=384,
    experts_per_token=6,
    expert_width=3072,
    hash_layers=3,
    mtp_layers=1,
    max_positions=1_048_576,
)
# What `flashplane-worker model tiny` writes; it runs on configurations of architecture cpu.
TINY = Geometry(
    name="tiny",
    vocab_size=129_280,
    hidden_size=64,
    heads=4,
    head_dim=64,
    rope_dim=32,
    q_lora_rank=64,
    o_groups=2,
    o_lora_rank=32,
    window=128,
    ratios=(0, 0, 4, 128, 4, 128),
    index_heads=32,
    index_dim=32,
    index_topk=64,
    experts=8,
    experts_per_token=2,
    expert_width=64,
    hash_layers=3,
    mtp_layers=1,
    max_positions=1_048_576,
)


def from_config(config: Mapping[str, Any], *, name: str = "") -> Geometry:
    """Return the geometry that a config.json describes.

    Raises:
        Refused: another architecture, or a field is missing.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise Refused(
            Reason.IMPOSSIBLE_GEOMETRY,
            f"model_type is {config.get('model_type')!r}, only {MODEL_TYPE!r} is known",
        )
    try:
        return Geometry(
            name=name or MODEL_TYPE,
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            heads=config["num_attention_heads"],
            head_dim=config["head_dim"],
            rope_dim=config["qk_rope_head_dim"],
            q_lora_rank=config["q_lora_rank"],
            o_groups=config["o_groups"],
            o_lora_rank=config["o_lora_rank"],
            window=config["sliding_window"],
            # The list ends with the layers of multi-token prediction.
            ratios=tuple(config["compress_ratios"][: config["num_hidden_layers"]]),
            index_heads=config["index_n_heads"],
            index_dim=config["index_head_dim"],
            index_topk=config["index_topk"],
            experts=config["n_routed_experts"],
            experts_per_token=config["num_experts_per_tok"],
            expert_width=config["moe_intermediate_size"],
            hash_layers=config["num_hash_layers"],
            mtp_layers=config.get("num_nextn_predict_layers", 0),
            max_positions=config["max_position_embeddings"],
            streams=config["hc_mult"],
        )
    except KeyError as error:
        raise Refused(Reason.IMPOSSIBLE_GEOMETRY, f"config.json lacks {error}") from error
