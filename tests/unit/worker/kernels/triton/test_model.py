"""Whole models on this backend give the logits of the reference, prompts and decodes side by side.

Float32 throughout: narrower arithmetic flips near-ties of routing, which proves nothing.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.v4 import ENGINE, SMALL, Sequences

from benchmarks.engine.models import SLIM
from worker.config import ModelConfig
from worker.model.tiny import write_checkpoint
from worker.runner.model_runner import ModelRunner

LIMITS = replace(ENGINE, pages=8, max_sequences=2, snapshots_kept=1)
# The interpreter takes its time: one layer of each kind, and few tokens. A prompt beyond the window
# and the top-k beside a single token; then decodes, of which one completes entries of both kinds.
LEAST = replace(
    SMALL,
    num_hidden_layers=3,
    num_hash_layers=1,
    compress_ratios=(0, 4, 32, 0),
    sliding_window=8,
    index_topk=4,
)
LENGTHS = ({0: 31, 1: 1}, {0: 1, 1: 2})


def steps(runner: ModelRunner, lengths: tuple[dict[int, int], ...]) -> list[torch.Tensor]:
    """Logits [rows, vocab] of each step, on the CPU."""
    generator = torch.Generator().manual_seed(3)
    sequences, found = Sequences(runner), []
    for step in lengths:
        vocabulary = runner.config.vocab_size
        chunks = {
            slot: torch.randint(vocabulary, (n,), generator=generator).tolist()
            for slot, n in step.items()
        }
        rows = sequences.logits(chunks)
        found.append(torch.cat([rows[slot] for slot in sorted(rows)]).cpu())
    return found


def check(
    model: Path, device: str, kv_format: str, lengths: tuple[dict[int, int], ...], error: float
) -> None:
    """Assert that ours on `device` are the reference's on the CPU, relative to the greatest."""
    limits = replace(LIMITS, kv_format=kv_format)
    expected = steps(ModelRunner(model, replace(limits, kernels="reference")), lengths)
    ours = steps(ModelRunner(model, replace(limits, kernels="triton", device=device)), lengths)
    for mine, theirs in zip(ours, expected, strict=True):
        assert float((mine - theirs).abs().max() / theirs.abs().max()) <= error


def written(directory: Path, config: ModelConfig) -> Path:
    write_checkpoint(directory / "model", config)
    return directory / "model"


@pytest.mark.parametrize("kv_format", [pytest.param("auto", marks=pytest.mark.storm), "fp8"])
def test_a_small_model_gives_the_references_logits(
    device: str, kv_format: str, tmp_path: Path
) -> None:
    check(written(tmp_path, LEAST), device, kv_format, LENGTHS, error=1e-4)


@pytest.mark.gpu
@pytest.mark.storm
@pytest.mark.parametrize("kv_format", ["auto", "fp8"])
def test_real_widths_on_a_gpu_give_the_references_logits(kv_format: str, tmp_path: Path) -> None:
    lengths = ({0: 2_200, 1: 1}, {0: 1, 1: 300}, {0: 1, 1: 1})  # beyond 512 entries of 4 tokens
    check(written(tmp_path, SLIM), "cuda", kv_format, lengths, error=1e-3)
