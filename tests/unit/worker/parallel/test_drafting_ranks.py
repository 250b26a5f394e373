"""Multi-token prediction on ranks that share experts: each step has as many exchanges on all."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.expert_ranks import Chunks, Models, ranks
from support.v4 import ENGINE, SMALL, Sequences

from worker.batch import SequenceOutput
from worker.model.tiny import write_checkpoint
from worker.parallel.groups import ExpertGroup
from worker.runner.model_runner import ModelRunner

DRAFTING = replace(ENGINE, draft_tokens=2)
# One slot per rank; a rank without a chunk steps along.
STEPS: list[list[Chunks]] = [
    [{0: list(range(40))}, {}],
    [{0: [7]}, {1: list(range(9, 60))}],
    [{}, {1: [5]}],
    [{}, {1: [6]}],
    [{0: [8, 9, 10]}, {1: [7]}],
]


def said(outputs: list[SequenceOutput]) -> list[tuple[list[int], list[int]]]:
    return [([t.token_id for t in o.tokens], o.draft_token_ids) for o in outputs]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small"
    write_checkpoint(directory, SMALL)
    return directory


def test_tokens_and_drafts_are_those_of_one_rank(directory: Path) -> None:
    alone = Sequences(ModelRunner(directory, DRAFTING))
    with ranks(2) as together:
        models = Models(together, directory, DRAFTING)

        for step in STEPS:

            def run(group: ExpertGroup, step: list[Chunks] = step) -> list[SequenceOutput]:
                return models.sequences[group.rank].execute(step[group.rank])

            for chunks, outputs in zip(step, together.each(run), strict=True):
                expected = alone.execute(chunks)
                assert said(outputs) == said(expected)
                assert all(len(o.draft_token_ids) == 2 for o in outputs)
