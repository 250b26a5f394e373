import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.v4 import FLASH, SMALL, official_pro

from worker.config import EngineConfig, ModelConfig
from worker.errors import ConfigError, UnsupportedModelError
from worker.model.tiny import TINY, official_config


def flash() -> dict[str, Any]:
    return official_config(FLASH)


@pytest.mark.parametrize("config", [TINY, SMALL, FLASH])
def test_official_keys_round_trip(config: ModelConfig) -> None:
    assert ModelConfig.from_official(json.loads(json.dumps(official_config(config)))) == config


def test_unknown_keys_are_ignored() -> None:
    assert ModelConfig.from_official(flash() | {"torch_dtype": "x"}) == FLASH


@pytest.mark.parametrize("model_type", ["deepseek_v41", "deepseek_v3", "", None])
def test_another_architecture_is_refused_by_name(model_type: str | None) -> None:
    with pytest.raises(UnsupportedModelError, match=repr(str(model_type))):
        ModelConfig.from_official(flash() | {"model_type": model_type})


@given(st.sampled_from(sorted(set(asdict(SMALL)) - {"rope_scaling"})))
def test_a_missing_key_is_named(key: str) -> None:
    raw = flash()
    del raw[key]
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_official(raw)


@pytest.mark.parametrize("value", ["4096", None, True, 1.5, [1], -1, 0])
def test_a_value_of_another_type_or_domain_is_named(value: object) -> None:
    with pytest.raises(ConfigError, match="hidden_size"):
        ModelConfig.from_official(flash() | {"hidden_size": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-6, 0])
def test_factors_must_be_positive_and_finite(value: float) -> None:
    with pytest.raises(ConfigError, match="rms_norm_eps must be positive"):
        ModelConfig.from_official(flash() | {"rms_norm_eps": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_dtype", "int4"),
        ("scoring_func", "softmax"),
        ("n_shared_experts", 2),
        ("norm_topk_prob", False),
        ("quantization_config", {"quant_method": "fp8", "scale_fmt": "float32"}),
        ("quantization_config", {"quant_method": "modelopt"}),
        ("quantization_config", []),
        ("rope_scaling", {"type": "linear", "factor": 2}),
        ("compress_ratios", [0, 4]),
        ("compress_ratios", "0,4"),
    ],
)
def test_what_is_not_implemented_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_official(flash() | {key: value})


@pytest.mark.parametrize("key", ["factor", "beta_fast", "original_max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, math.nan, 10**400])
def test_yarn_numbers_that_make_no_frequencies_are_refused(key: str, value: float) -> None:
    yarn = asdict(FLASH)["rope_scaling"] | {"type": "yarn", key: value}
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_official(flash() | {"rope_scaling": yarn})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_dtype", "fp8"),
        ("expert_dtype", "bf16"),
        ("quantization_config", None),
        ("quantization_config", {"quant_method": "fp8", "scale_fmt": "float"}),
    ],
)
def test_every_storage_that_is_read_is_accepted(key: str, value: object) -> None:
    assert ModelConfig.from_official(flash() | {key: value}) == FLASH


def test_the_pro_geometry_is_accepted() -> None:
    assert ModelConfig.from_official(official_config(official_pro())) == official_pro()


def rewritten() -> dict[str, Any]:
    """The keys that transformers writes in place of the original ones."""
    raw = official_config(SMALL)
    del raw["compress_ratios"], raw["num_hash_layers"], raw["rope_scaling"]
    return raw | {
        "layer_types": [
            "sliding_attention",
            *["compressed_sparse_attention", "heavily_compressed_attention"] * 2,
        ],
        "compress_rates": {
            "compressed_sparse_attention": 4,
            "heavily_compressed_attention": 32,
        },
        "mlp_layer_types": ["hash_moe"] * 2 + ["moe"] * 3,
        "rope_parameters": {
            "main": {"rope_type": "default", "rope_theta": 10_000.0},
            "compress": {
                "rope_type": "yarn",
                "rope_theta": 160_000.0,
                **asdict(SMALL)["rope_scaling"],
            },
        },
    }


def test_a_config_rewritten_by_transformers_means_the_same() -> None:
    assert ModelConfig.from_official(rewritten()) == SMALL


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("compress_rates", {}, "compressed_sparse_attention"),
        ("rope_parameters", None, "original config.json"),
        ("mlp_layer_types", ["moe", "hash_moe", "moe", "moe", "moe"], "hash layers first"),
    ],
)
def test_a_rewritten_config_that_cannot_be_undone_is_refused(
    key: str, value: object, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        ModelConfig.from_official(rewritten() | {key: value})


def test_pages_hold_whole_entries_of_every_ratio() -> None:
    assert FLASH.page_tokens == 256
    odd = replace(SMALL, compress_ratios=(0, 4, 96, 4, 10, 0))
    assert odd.page_tokens == 3840
    assert [odd.page_entries(ratio) for ratio in (4, 96, 10)] == [960, 40, 384]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\xff"])
def test_an_unreadable_file_is_a_config_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_dir(tmp_path)


def test_engine_sizes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="pages"):
        EngineConfig(pages=0)


@pytest.mark.parametrize("draft_tokens", [-1, 17])
def test_drafts_are_few(draft_tokens: int) -> None:
    assert EngineConfig(draft_tokens=16).draft_tokens == 16
    with pytest.raises(ConfigError, match="draft_tokens"):
        EngineConfig(draft_tokens=draft_tokens)


def test_a_state_reaches_back_by_windows_times_layers() -> None:
    assert FLASH.state_reach_tokens == 43 * 127
    self_only = replace(FLASH, sliding_window=1)
    assert self_only.state_reach_tokens == 4  # of CSA's overlap
