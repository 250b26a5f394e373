"""The model's geometry, read from an official config.json, and the engine's own settings.

Plain data for every floor above. Nothing here is a guess: a key that is absent, of another type,
or names something this worker does not implement raises `ConfigError` with the key's name.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from worker.errors import ConfigError, UnsupportedModelError

MODEL_TYPE = "deepseek_v4"
CSA_RATIO = 4  # the one ratio with overlapping pooling and an indexer; any other nonzero is HCA
PAGE_TOKENS = 256
MOST_DRAFT_TOKENS = 16  # every ring grows by so many rows, and no step crosses two pages' ends

# Keys that are checked rather than carried around: the values implemented, the official one first.
# How tensors are stored is read from the checkpoint's own headers; here it only has to be known.
FIXED: dict[str, tuple[object, ...]] = {
    "scoring_func": ("sqrtsoftplus",),
    "topk_method": ("noaux_tc",),
    "norm_topk_prob": (True,),
    "n_shared_experts": (1,),
    "num_key_value_heads": (1,),
    "tie_word_embeddings": (False,),
    "hidden_act": ("silu",),
    "expert_dtype": ("fp4", "fp8", "bf16"),
}
FIXED_QUANTIZATION: dict[str, tuple[object, ...]] = {
    "quant_method": ("fp8",),
    "fmt": ("e4m3",),
    "scale_fmt": ("ue8m0", "float"),
    "weight_block_size": ([128, 128],),
}


@dataclass(frozen=True, slots=True)
class Yarn:
    """YaRN context extension of the compressed layers' RoPE."""

    factor: float
    beta_fast: float
    beta_slow: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """DeepSeek-V4 geometry under its official names. `compress_ratios` has one entry per layer
    (0 window only, 4 compressed sparse attention, else heavily compressed attention), and one more
    per multi-token-prediction layer."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    sliding_window: int
    compress_ratios: tuple[int, ...]
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    num_hash_layers: int
    routed_scaling_factor: float
    swiglu_limit: float
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float
    rope_theta: float
    compress_rope_theta: float
    rope_scaling: Yarn | None
    max_position_embeddings: int
    rms_norm_eps: float
    num_nextn_predict_layers: int
    bos_token_id: int
    eos_token_id: int

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ConfigError("config.json: " + "; ".join(problems))

    @property
    def page_tokens(self) -> int:
        """Positions per logical page: whole entries of every ratio fit."""
        return math.lcm(PAGE_TOKENS, *(r for r in self.compress_ratios if r))

    def page_entries(self, ratio: int) -> int:
        """Compressed entries that one page holds in a layer of this ratio."""
        return self.page_tokens // ratio

    @property
    def state_reach_tokens(self) -> int:
        """So many tokens before a position, run through all layers over known entries, give the
        exact state there: each layer's inputs are exact a window later than the layer's before, and
        the last needs its inputs for the window, or for CSA's overlap, up to the position."""
        behind = self.sliding_window - 1
        return (self.num_hidden_layers - 1) * behind + max(behind, CSA_RATIO)

    @classmethod
    def from_dir(cls, directory: str | Path) -> "ModelConfig":
        """Parse `directory`/config.json. Raises ConfigError, UnsupportedModelError."""
        path = Path(directory) / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist; is this a model directory?") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
        return cls.from_official(raw)

    @classmethod
    def from_official(cls, raw: object) -> "ModelConfig":
        """Parse config.json's content. Raises ConfigError, UnsupportedModelError."""
        if not isinstance(raw, dict):
            raise ConfigError("config.json is not a JSON object")
        if raw.get("model_type") != MODEL_TYPE:
            raise UnsupportedModelError(str(raw.get("model_type")))
        _require_fixed(raw, FIXED)
        quantization = raw.get("quantization_config")
        if quantization is not None:  # absent where nothing is quantised
            _require_fixed(quantization, FIXED_QUANTIZATION, "quantization_config.")
        raw = _original_keys(raw)
        values: dict[str, Any] = {
            name: _number(raw, name, kind)
            for name, kind in cls.__annotations__.items()
            if kind in (int, float)
        }
        values["rope_scaling"] = _yarn(raw.get("rope_scaling"))
        ratios = raw.get("compress_ratios")
        if not isinstance(ratios, list) or not all(type(r) is int for r in ratios):
            raise ConfigError("config.json: compress_ratios must be a list of integers")
        return cls(compress_ratios=tuple(ratios), **values)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much of the machine the engine takes. `pages`, `max_sequences` (a state slot each) and
    `snapshots_kept` (states kept at page boundaries, for reuse) size the KV tensors.
    `draft_tokens`: how many tokens beyond the next one a forward may guess. `ep_size`: ranks that
    share the routed experts; each has all the other limits for itself."""

    device: str = "cpu"
    dtype: str = "float32"  # a name in worker.model.numerics.NUMERICS
    kernels: str = "auto"  # or a name in worker.kernels.load.BACKENDS
    kv_format: str = "auto"  # a name in worker.runner.kv_tensors.KV_FORMATS
    max_model_len: int = 32_768
    max_sequences: int = 32
    max_batch_tokens: int = 2_048
    pages: int = 512
    snapshots_kept: int = 64
    snapshots: str = "full"  # where: see worker.cache.policy
    attention_tile_bytes: int = 64 << 20  # workspace of one query tile
    draft_tokens: int = 0
    ep_size: int = 1
    ep_timeout_seconds: int = 60  # of a rank that the others wait for

    def __post_init__(self) -> None:
        for name in self.__annotations__:
            value = getattr(self, name)
            least = 0 if name in ("draft_tokens", "snapshots_kept") else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
        if self.draft_tokens > MOST_DRAFT_TOKENS:
            raise ConfigError(f"draft_tokens must be at most {MOST_DRAFT_TOKENS}")


def _number(raw: dict[str, Any], name: str, kind: type) -> int | float:
    value = raw.get(name)
    allowed = (int, float) if kind is float else (int,)
    if type(value) not in allowed:
        raise ConfigError(f"config.json: {name} must be a number of type {kind.__name__}")
    if isinstance(value, int) and value.bit_length() > 63:  # JSON's integers know no bounds
        raise ConfigError(f"config.json: {name} is too large")
    return cast("int | float", kind(value))


def _yarn(raw: object) -> Yarn | None:
    if raw is None:
        return None
    if not isinstance(raw, dict) or raw.get("rope_type", raw.get("type")) != "yarn":
        raise ConfigError("config.json: rope_scaling must be null or of type yarn")
    values: dict[str, Any] = {n: _number(raw, n, kind) for n, kind in Yarn.__annotations__.items()}
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"config.json: rope_scaling.{name} must be positive")
    return Yarn(**values)


def _require_fixed(raw: object, expected: dict[str, tuple[object, ...]], prefix: str = "") -> None:
    if not isinstance(raw, dict):
        raise ConfigError(f"config.json: {prefix.rstrip('.')} must be an object")
    for name, values in expected.items():
        if raw.get(name, values[0]) not in values:
            known = " or ".join(map(repr, values))
            raise ConfigError(
                f"config.json: {prefix}{name} is {raw[name]!r}; only {known} is implemented"
            )


def _original_keys(raw: dict[str, Any]) -> dict[str, Any]:
    """Undo what transformers rewrites when it saves a config; an original one is returned as is."""
    if "compress_ratios" in raw or "layer_types" not in raw:
        return raw
    try:
        rates = {"sliding_attention": 0, **raw["compress_rates"]}
        ratios = [rates[kind] for kind in raw["layer_types"]]
        hashed = [kind == "hash_moe" for kind in raw["mlp_layer_types"]]
        main, compress = raw["rope_parameters"]["main"], raw["rope_parameters"]["compress"]
        thetas = main["rope_theta"], compress["rope_theta"]
        plain = compress["rope_type"] == "default"
        mtp_layers = int(raw["num_nextn_predict_layers"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"config.json was rewritten by transformers, and {error} is not usable; "
            "put the original config.json in its place"
        ) from error
    if hashed != sorted(hashed, reverse=True):
        raise ConfigError("config.json: mlp_layer_types must have the hash layers first")
    return raw | {
        "compress_ratios": ratios + [0] * mtp_layers,
        "num_hash_layers": sum(hashed),
        "rope_theta": thetas[0],
        "compress_rope_theta": thetas[1],
        "rope_scaling": None if plain else compress,
    }


def _problems(c: ModelConfig) -> list[str]:
    sizes = [n for n, kind in c.__annotations__.items() if kind is int]
    may_be_zero = {"num_hash_layers", "num_nextn_predict_layers", "bos_token_id", "eos_token_id"}
    found = [f"{n} must be positive" for n in sizes if getattr(c, n) < (n not in may_be_zero)]
    factors = [n for n, kind in c.__annotations__.items() if kind is float]
    found += [f"{n} must be positive" for n in factors if not 0 < getattr(c, n) < math.inf]
    if found:
        return found
    checks = {
        "compress_ratios needs one entry per layer and per MTP layer": len(c.compress_ratios)
        == c.num_hidden_layers + c.num_nextn_predict_layers,
        "compress_ratios must not be negative": min(c.compress_ratios, default=0) >= 0,
        "MTP layers must have ratio 0": not any(c.compress_ratios[c.num_hidden_layers :]),
        "qk_rope_head_dim must be even": c.qk_rope_head_dim % 2 == 0,
        "head_dim must be even": c.head_dim % 2 == 0,
        "qk_rope_head_dim must be below head_dim": c.qk_rope_head_dim < c.head_dim,
        "qk_rope_head_dim must not exceed index_head_dim": c.qk_rope_head_dim <= c.index_head_dim,
        "index_head_dim must be a power of two": c.index_head_dim.bit_count() == 1,
        "num_attention_heads must be a multiple of o_groups": c.num_attention_heads % c.o_groups
        == 0,
        "num_experts_per_tok must not exceed n_routed_experts": c.num_experts_per_tok
        <= c.n_routed_experts,
        "num_hash_layers must not exceed num_hidden_layers": c.num_hash_layers
        <= c.num_hidden_layers,
        "hidden_size must be a multiple of 32": c.hidden_size % 32 == 0,
        "moe_intermediate_size must be a multiple of 32": c.moe_intermediate_size % 32 == 0,
    }
    return [text for text, holds in checks.items() if not holds]
