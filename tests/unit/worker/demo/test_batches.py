"""Packing loses nothing, mixes nothing, and numbers what it must."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.demo_toys import KNOWN, TOY_MODEL, echo, fresh

from worker.demo.batches import WIDTHS, Document, chunk, on_device, packed
from worker.demo.layout import PADDING
from worker.demo.loop import candidates
from worker.demo.presets import Preset

DOCUMENTS = st.lists(st.integers(2, max(WIDTHS)), min_size=1, max_size=40)


def document(number: int, length: int) -> Document:
    ids = [1 + (number * 7 + i) % 1_000 for i in range(length)]
    return Document(ids, [i % 3 == number % 3 for i in range(length)], f"task {number % 2}")


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.integers(1_024, 4_096))
def test_every_document_lies_whole_in_one_row(lengths: list[int], step_tokens: int) -> None:
    documents = [document(n, length) for n, length in enumerate(lengths)]
    found = []
    for batch in packed(documents, step_tokens, seed=3):
        assert batch.ids.shape[1] in WIDTHS
        assert batch.ids.size <= step_tokens
        for number, task in enumerate(batch.tasks):
            rows, places = (batch.documents == number).nonzero()
            assert set(rows.tolist()) == {rows[0]}
            assert places[0] % 4 == 0
            assert places.tolist() == list(range(places[0], places[-1] + 1))
            ids = batch.ids[rows, places].tolist()
            learned = batch.learns_next[rows, places].tolist()
            assert learned[-1] is False
            found.append((ids, learned[:-1], task))
    expected = [(list(d.ids), list(d.learned[1:]), d.task) for d in documents]
    assert sorted(found) == sorted(expected)


def test_a_chunk_is_a_function_of_its_number() -> None:
    once, again = (chunk(echo, 5, examples=64, step_tokens=512) for _ in range(2))
    assert [b.ids.tolist() for b in once] == [b.ids.tolist() for b in again]


def test_slots_and_targets_name_the_tokens_that_are_there() -> None:
    state = fresh()
    vocabulary = candidates(state, Preset(TOY_MODEL, 1, 512, 0.1, 0.1), "cpu")
    rows = chunk(echo, 0, examples=20, step_tokens=512)[0]
    batch = on_device(rows, vocabulary, TOY_MODEL, 128, seed=9)
    embed = torch.cat((vocabulary.frozen[torch.tensor(KNOWN)], batch.frozen))
    ids = torch.from_numpy(rows.ids)
    assert torch.equal(embed[batch.layout.slots], vocabulary.frozen[ids])
    flat = ids.flatten()
    targets = batch.targets
    assert torch.equal(embed[targets.tokens], vocabulary.frozen[flat[targets.rows + 1]])
    assert torch.equal(embed[targets.draft_tokens], vocabulary.frozen[flat[targets.draft_rows + 2]])
    owner = torch.from_numpy(rows.documents).flatten()
    assert torch.equal(owner[targets.draft_rows], owner[targets.draft_rows + 2])
    assert PADDING not in owner[targets.rows]


def test_sampled_rows_weigh_as_much_as_those_they_stand_for() -> None:
    vocabulary = candidates(fresh(), Preset(TOY_MODEL, 1, 512, 0.1, 0.1), "cpu")
    rows = chunk(echo, 0, examples=4, step_tokens=256)[0]
    offset = on_device(rows, vocabulary, TOY_MODEL, 16, seed=9).targets.offset
    assert float(offset.exp().sum()) == pytest.approx(TOY_MODEL.vocab_size, rel=1e-5)
