"""The trainable forward computes what the engine, transformers and the published formulas do."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.demo_weights import hashed_experts, trainable
from support.mtp_reference import MtpReference
from support.oracle import oracle, oracle_logits
from support.v4 import ENGINE, SMALL, Sequences

from worker.demo.forward import Weights, draft, hidden, run
from worker.demo.layout import PADDING, lay_out
from worker.model.tiny import write_checkpoint
from worker.runner.model_runner import ModelRunner

# Every entry is seen: in training the indexer leaves nothing out.
CONFIG = replace(SMALL, index_topk=512)
TOLERANCE = 1e-5  # largest error over largest logit
LENGTHS = (150, 37, 70, 3)  # window, HCA's second entry, unfinished entries, none at all


def documents() -> list[list[int]]:
    draw = random.Random(8)
    return [draw.choices(range(CONFIG.vocab_size), k=length) for length in LENGTHS]


def packed(weights: Weights, rows: list[list[list[int]]], width: int) -> torch.Tensor:
    """Streams [B, width, n, D] of documents packed row by row."""
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    owner = torch.full_like(ids, PADDING)
    for b, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            ids[b, start : start + len(document)] = torch.tensor(document)
            owner[b, start : start + len(document)] = number
            start += -(-len(document) // 4) * 4
    layout = lay_out(CONFIG, ids, owner, hashed_experts(dict(weights), CONFIG, ids))
    streams = run(weights, CONFIG, layout)
    both = torch.stack((streams, draft(weights, CONFIG, layout, streams)))
    return both.unflatten(1, ids.shape)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "model"
    write_checkpoint(directory, CONFIG, seed=31)
    return directory


@pytest.fixture(scope="module")
def weights(directory: Path) -> Weights:
    return trainable(directory, CONFIG)


@pytest.fixture(scope="module")
@torch.inference_mode()
def logits(weights: Weights) -> list[torch.Tensor]:
    """Of each document, all of them packed into two rows."""
    first, second, third, fourth = documents()
    streams = packed(weights, [[first, second], [third, fourth]], 192)[0]
    taken = [streams[0, :150], streams[0, 152:189], streams[1, :70], streams[1, 72:75]]
    return [hidden(weights, CONFIG, part) @ weights["head.weight"].T for part in taken]


def test_packed_documents_get_the_engines_logits(
    directory: Path, logits: list[torch.Tensor]
) -> None:
    sequences = Sequences(ModelRunner(directory, ENGINE))
    for slot, (ours, document) in enumerate(zip(logits, documents(), strict=True)):
        assert error(ours, sequences.logits({slot: document})[slot]) <= TOLERANCE


def test_packed_documents_get_the_logits_of_transformers(
    directory: Path, logits: list[torch.Tensor]
) -> None:
    model = oracle(directory, CONFIG)
    for ours, document in zip(logits, documents(), strict=True):
        assert error(ours, oracle_logits(model, document)) <= TOLERANCE


@torch.inference_mode()
def test_guesses_follow_the_published_formulas(directory: Path, weights: Weights) -> None:
    document = documents()[0]
    streams, guessed = packed(weights, [[document]], 152)[:, 0, : len(document) - 1]
    reference = MtpReference(directory)
    theirs = reference.streams(streams, document[1:])
    assert error(guessed, theirs) <= TOLERANCE
    ours = hidden(weights, CONFIG, guessed, "mtp.0.") @ weights["head.weight"].T
    assert error(ours, reference.logits(theirs)) <= TOLERANCE


@torch.inference_mode()
def test_neighbours_do_not_meet(weights: Weights) -> None:
    first, second, *_ = documents()
    together = packed(weights, [[first, second]], 192)[:, 0, 152:188]
    alone = packed(weights, [[second]], 40)[:, 0, :36]
    assert error(together, alone) <= TOLERANCE
