"""One model on 1, 2 and 4 ranks, all with sequences of their own: the logits of transformers' whole
model. Ranks are threads here, with real collectives between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.checkpoints import Tensors, rewrite
from support.expert_ranks import Chunks, Models, Ranks, ranks
from support.oracle import (
    TOLERANCE,
    model_on_disk,
    oracle,
    oracle_logits,
    relative_error,
    tokens,
)
from support.v4 import SMALL

LENGTHS = (300, 170, 260, 90)  # of the prompt in each slot; slot i lives on rank i mod size
PROMPTS = [tokens(length, SMALL.vocab_size, seed=length) for length in LENGTHS]


class Truth:
    """A checkpoint, and transformers' logits for every prompt."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        model = oracle(directory, SMALL)
        self.logits = [oracle_logits(model, prompt) for prompt in PROMPTS]

    def check(self, slot: int, first: int, rows: torch.Tensor) -> None:
        """`rows` follow the prompt's tokens from number `first` on."""
        theirs = self.logits[slot][first : first + len(rows)]
        assert len(theirs) == len(rows)
        assert relative_error(rows, theirs).max() <= TOLERANCE, slot


@pytest.fixture(scope="module")
def truth() -> Iterator[Truth]:
    with model_on_disk(SMALL, seed=3) as directory:
        yield Truth(directory)


@pytest.fixture(scope="module", params=[1, 2, 4])
def together(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    with ranks(request.param) as group:
        yield group


def run_in_chunks(models: Models, truth: Truth, sizes: dict[int, list[int]]) -> None:
    """Run chunks of `sizes[slot]` tokens, one of each slot per forward of all ranks, and compare
    every row. A rank that has no more of them steps along."""
    count = len(models.sequences)
    done = dict.fromkeys(sizes, 0)
    for step in range(max(map(len, sizes.values()))):
        chunks: list[Chunks] = [{} for _ in range(count)]
        for slot, lengths in sizes.items():
            for length in lengths[step : step + 1]:
                chunks[slot % count][slot] = PROMPTS[slot][done[slot] : done[slot] + length]
        for parts in models.logits(chunks):
            for slot, rows in parts.items():
                truth.check(slot, done[slot], rows)
                done[slot] += len(rows)


def test_whole_prompts(truth: Truth, together: Ranks) -> None:
    models = Models(together, truth.directory)
    run_in_chunks(models, truth, {slot: [length] for slot, length in enumerate(LENGTHS)})


def test_decodes_beside_prefills(truth: Truth, together: Ranks) -> None:
    models = Models(together, truth.directory)
    sizes = {0: [270, *[1] * 30], 1: [1] * 20, 2: [30, 100, 129, 1], 3: [89, 1]}
    run_in_chunks(models, truth, sizes)


def test_one_rank_has_all_the_work(truth: Truth, together: Ranks) -> None:
    models = Models(together, truth.directory)
    run_in_chunks(models, truth, {3: [50, 1, 1, 38]})


def test_experts_that_draw_everyone_and_ranks_that_draw_no_one(
    tmp_path: Path, truth: Truth, together: Ranks
) -> None:
    """In two layers all tokens choose the same two experts, of the first and of the last rank."""
    hash_layer, learned_layer = "layers.0.ffn.gate.tid2eid", "layers.3.ffn.gate.bias"

    def crowd(tensors: Tensors) -> Tensors:
        first = torch.tensor([1, 0]).expand(tensors[hash_layer].shape).contiguous()
        last = tensors[learned_layer].clone()
        last[-2:] += 100.0
        return tensors | {hash_layer: first, learned_layer: last}

    crowded = Truth(rewrite(truth.directory, tmp_path / "crowded", crowd))
    models = Models(together, crowded.directory)
    run_in_chunks(models, crowded, {0: [100, 1], 1: [170], 2: [64, 64]})
