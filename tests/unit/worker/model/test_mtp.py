"""The draft head against the published formulas, in any chunks."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mtp_reference import MtpReference
from support.v4 import ENGINE, SMALL, Sequences

from worker.batch import ScheduledSequence
from worker.model.mtp import DraftHead
from worker.model.ragged import lay_out
from worker.model.tiny import write_checkpoint
from worker.runner.model_runner import ModelRunner

TOLERANCE = 1e-5  # largest error over largest logit
DRAFTING = replace(ENGINE, draft_tokens=1)
LENGTH = 90


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mtp") / "model"
    write_checkpoint(directory, SMALL, seed=21)
    return directory


@pytest.fixture(scope="module")
def runner(directory: Path) -> ModelRunner:
    return ModelRunner(directory, DRAFTING)


@pytest.fixture(scope="module")
def token_ids() -> list[int]:
    return random.Random(5).choices(range(SMALL.vocab_size), k=LENGTH + 1)


@pytest.fixture(scope="module")
@torch.inference_mode()
def last_streams(runner: ModelRunner, token_ids: list[int]) -> torch.Tensor:
    """[LENGTH, n, D] of the model's last layer."""
    chunk = Sequences(runner).scheduled(0, token_ids[:-1])
    return runner.model(lay_out([chunk], SMALL, DRAFTING), runner.kv.layers).clone()


@pytest.fixture(scope="module")
def expected(
    directory: Path, last_streams: torch.Tensor, token_ids: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's streams and logits."""
    reference = MtpReference(directory)
    streams = reference.streams(last_streams, token_ids[1:])
    return streams, reference.logits(streams)


def head_of(runner: ModelRunner) -> DraftHead:
    assert runner.drafter is not None
    return runner.drafter.head


@torch.inference_mode()
def advance(
    runner: ModelRunner, chunks: list[ScheduledSequence], streams: torch.Tensor
) -> torch.Tensor:
    assert runner.kv.drafting is not None
    return head_of(runner)(streams, lay_out(chunks, SMALL, DRAFTING), runner.kv.drafting)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, LENGTH - 1), max_size=5, unique=True))
def test_streams_and_logits_follow_the_formulas_in_any_chunks(
    runner: ModelRunner,
    token_ids: list[int],
    last_streams: torch.Tensor,
    expected: tuple[torch.Tensor, torch.Tensor],
    cuts: list[int],
) -> None:
    sequences = Sequences(runner)
    edges = [0, *sorted(cuts), LENGTH]
    parts = [
        advance(runner, [sequences.scheduled(3, token_ids[a + 1 : b + 1])], last_streams[a:b])
        for a, b in pairwise(edges)
    ]
    streams = torch.cat(parts)
    assert error(streams, expected[0]) <= TOLERANCE
    assert error(head_of(runner).logits(streams), expected[1]) <= TOLERANCE


def test_the_last_window_is_enough_for_the_last_row(
    runner: ModelRunner,
    token_ids: list[int],
    last_streams: torch.Tensor,
    expected: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """What drafting skips of a prompt changes nothing that is used."""
    window = SMALL.sliding_window
    runner.kv.clear([4])
    sequences = Sequences(runner, lengths={4: LENGTH - window})
    chunk = sequences.scheduled(4, token_ids[-window:])
    streams = advance(runner, [chunk], last_streams[-window:])
    assert error(streams[-1:], expected[0][-1:]) <= TOLERANCE


def test_neighbours_do_not_meet(
    runner: ModelRunner,
    token_ids: list[int],
    last_streams: torch.Tensor,
    expected: tuple[torch.Tensor, torch.Tensor],
) -> None:
    sequences = Sequences(runner)
    chunks = [sequences.scheduled(slot, token_ids[1 : 41 - 5 * slot]) for slot in range(3)]
    streams = torch.cat([last_streams[: len(chunk.token_ids)] for chunk in chunks])
    rows = advance(runner, chunks, streams).split([len(c.token_ids) for c in chunks])
    for ours in rows:
        assert error(ours, expected[0][: len(ours)]) <= TOLERANCE
