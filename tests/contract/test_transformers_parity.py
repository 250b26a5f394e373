"""Our float32 forward against Hugging Face transformers' deepseek_v4, an independent
implementation, loading the same official-format checkpoint with its own reader: one small geometry,
one with the official details. Many more are in test_geometries."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.oracle import (
    TOLERANCE,
    model_on_disk,
    oracle,
    oracle_logits,
    relative_error,
    tokens,
)
from support.v4 import ENGINE, SMALL, Sequences

from worker.config import ModelConfig
from worker.model.loader import load_weights
from worker.model.rope import angles, frequencies
from worker.runner.model_runner import ModelRunner


@pytest.fixture(scope="module")
def small() -> Iterator[tuple[Path, torch.nn.Module]]:
    with model_on_disk(SMALL, seed=3) as directory:
        yield directory, oracle(directory, SMALL)


@pytest.fixture
def fresh(small: tuple[Path, torch.nn.Module]) -> Sequences:
    return Sequences(ModelRunner(small[0], ENGINE))


def test_dequantised_weights_equal_those_of_transformers(
    small: tuple[Path, torch.nn.Module],
) -> None:
    ours = load_weights(small[0], SMALL, torch.float32)
    theirs = small[1].state_dict()
    layer = "model.layers.1."
    pairs = {
        "layers.1.attn.wq_b.weight": theirs[f"{layer}self_attn.q_b_proj.weight"],
        "layers.1.attn.wo_a.weight": theirs[f"{layer}self_attn.o_a_proj.weight"],
        "layers.1.ffn.shared_experts.w2.weight": theirs[
            f"{layer}mlp.shared_experts.down_proj.weight"
        ],
        "layers.1.ffn.experts.5.w2.weight": theirs[f"{layer}mlp.experts.down_proj"][5],
        "layers.1.ffn.experts.5.w1.weight": theirs[f"{layer}mlp.experts.gate_up_proj"][5][
            : SMALL.moe_intermediate_size
        ],
    }
    for name, tensor in pairs.items():
        assert torch.equal(ours[name], tensor), name


def test_a_model_saved_by_transformers_loads_the_same_weights(
    small: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small[1].save_pretrained(tmp_path, save_original_format=False, max_shard_size="1MB")
    assert ModelConfig.from_dir(tmp_path) == SMALL
    ours = load_weights(tmp_path, SMALL, torch.float32)
    expected = load_weights(small[0], SMALL, torch.float32)
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def test_prefill(small: tuple[Path, torch.nn.Module], fresh: Sequences) -> None:
    prompt = tokens(300, SMALL.vocab_size, seed=1)
    ours = fresh.logits({0: prompt})[0]
    assert relative_error(ours, oracle_logits(small[1], prompt)).max() <= TOLERANCE


def test_one_token_decode_follows_prefill(
    small: tuple[Path, torch.nn.Module], fresh: Sequences
) -> None:
    prompt = tokens(340, SMALL.vocab_size, seed=2)
    rows = [fresh.logits({0: prompt[:270]})[0]]
    rows += [fresh.logits({0: [token]})[0] for token in prompt[270:]]
    theirs = oracle_logits(small[1], prompt)
    assert relative_error(torch.cat(rows), theirs).max() <= TOLERANCE


def test_ragged_batch_of_prefills_and_decodes(
    small: tuple[Path, torch.nn.Module], fresh: Sequences
) -> None:
    prompts = {slot: tokens(150 + 60 * slot, SMALL.vocab_size, seed=10 + slot) for slot in range(4)}
    fresh.logits({0: prompts[0][:100], 2: prompts[2][:199]})
    parts = fresh.logits(
        {0: prompts[0][100:101], 1: prompts[1], 2: prompts[2][199:], 3: prompts[3]}
    )
    skipped = {0: 100, 1: 0, 2: 199, 3: 0}
    for slot, ours in parts.items():
        theirs = oracle_logits(small[1], prompts[slot])[skipped[slot] :][: len(ours)]
        assert relative_error(ours, theirs).max() <= TOLERANCE, slot


def test_every_official_geometry_detail_at_once() -> None:
    """Ratios 4 and 128, a 128-token window, 64 rotary dimensions, several FP8 blocks a side."""
    config = replace(
        SMALL,
        hidden_size=256,
        head_dim=128,
        qk_rope_head_dim=64,
        index_head_dim=64,
        q_lora_rank=256,
        sliding_window=128,
        compress_ratios=(0, 0, 4, 128, 4, 128, 0),
        num_hidden_layers=6,
        num_hash_layers=3,
        num_experts_per_tok=6,
        index_topk=32,
    )
    prompt = tokens(600, config.vocab_size, seed=4)
    with model_on_disk(config, seed=5) as directory:
        sequences = Sequences(ModelRunner(directory, ENGINE))
        rows = [sequences.logits({0: chunk})[0] for chunk in (prompt[:257], prompt[257:])]
        theirs = oracle_logits(oracle(directory, config), prompt)
    assert relative_error(torch.cat(rows), theirs).max() <= TOLERANCE


def test_a_million_positions_turn_as_there(small: tuple[Path, torch.nn.Module]) -> None:
    """Float32 has few digits left there: both must round alike from frequencies to angles."""
    positions = torch.tensor([0, 1, 65_535, 65_536, 1_048_575])
    rotary = small[1].model.rotary_emb
    for kind, compressed in (("main", False), ("compress", True)):
        cos, sin = rotary(torch.zeros(1), positions.unsqueeze(0), layer_type=kind)
        ours = angles(frequencies(SMALL, compressed, "cpu"), positions)
        torch.testing.assert_close(ours, torch.complex(cos[0], sin[0]), atol=2e-7, rtol=0)
