import random
from dataclasses import replace

import pytest
import torch
from support.v4 import ENGINE, SMALL, Sequences

from worker.batch import Batch, StateCopy
from worker.model.tiny import write_checkpoint
from worker.runner.model_runner import ModelRunner

BOUNDARY = 2 * SMALL.page_tokens
DRAFTS = 3


def tokens(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(SMALL.vocab_size), k=count)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    directory = tmp_path_factory.mktemp("snapshots") / "model"
    write_checkpoint(directory, SMALL, seed=14)
    return ModelRunner(directory, replace(ENGINE, draft_tokens=DRAFTS))


def poison(runner: ModelRunner, slot: int) -> None:
    for layer in runner.kv.layers:
        layer.window.data[slot] = torch.nan
        for cache in (layer.entries, layer.index):
            if cache is not None:
                cache.tail[slot] = torch.nan


@pytest.mark.parametrize("ahead", range(DRAFTS + 1))
def test_a_slot_may_be_ahead_of_the_boundary_by_all_its_guesses(
    runner: ModelRunner, ahead: int
) -> None:
    prompt, guesses = tokens(BOUNDARY + 90, 1), tokens(ahead, 2)
    whole = Sequences(runner).logits({0: prompt})[0][BOUNDARY:]
    sequences = Sequences(runner)
    kept = [StateCopy(0, 7, BOUNDARY)]
    sequences.execute({0: prompt[:BOUNDARY] + guesses}, copies_after=kept)
    poison(runner, 5)
    runner.execute(Batch([], copies_before=[StateCopy(5, 7, BOUNDARY)]))
    sequences.lengths[5], sequences.pages[5] = BOUNDARY, sequences.pages[0][:2]
    continued = sequences.logits({5: prompt[BOUNDARY:]})[5]
    assert (continued - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_restored_slot_holds_nothing_of_what_it_held(runner: ModelRunner) -> None:
    Sequences(runner).execute({0: tokens(BOUNDARY, 3)}, copies_after=[StateCopy(0, 2, BOUNDARY)])
    poison(runner, 5)
    runner.execute(Batch([], copies_before=[StateCopy(5, 2, BOUNDARY)]))
    for layer in runner.kv.layers:
        assert layer.window.data[5].isfinite().all()
        for cache in (layer.entries, layer.index):
            assert cache is None or cache.tail[5].isfinite().all()
