"""Rows that are not stored are the same ones everywhere."""

import hashlib

import pytest
import torch
from support.demo_toys import TOY_MODEL

from worker.demo.vocabulary import case_of, frequent, frozen_rows, hash_table, spellings
from worker.model.tiny import TINY


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def test_rows_and_tables_never_change() -> None:
    """A stored model is worth nothing without the very rows it was trained with."""
    assert digest(frozen_rows(TOY_MODEL)) == "0270cc18fcd4f8ec"
    assert digest(hash_table(TOY_MODEL)) == "d39780b66dc47730"


def test_rows_are_equally_long_and_nobody_elses() -> None:
    rows = frozen_rows(TOY_MODEL).float()
    assert abs(float(rows.mean())) < 0.2
    assert torch.allclose(rows.square().mean(1), torch.ones(len(rows)), atol=0.01)
    likeness = rows @ rows.T / TOY_MODEL.hidden_size
    assert torch.equal(likeness.argmax(1), torch.arange(len(rows)))


def test_hashed_experts_are_distinct() -> None:
    table = hash_table(TOY_MODEL)
    assert table.shape == (TOY_MODEL.num_hash_layers, TOY_MODEL.vocab_size, 2)
    assert bool((table[..., 0] != table[..., 1]).all())
    assert int(table.max()) < TOY_MODEL.n_routed_experts


def test_the_most_frequent_ids_learn() -> None:
    counts = {9: 3, 7: 3, 5: 2, 3: 1}
    assert frequent(counts, least=2, most=9) == [5, 7, 9]
    assert frequent(counts, least=1, most=2) == [7, 9]


def test_spellings_of_a_word_are_alike() -> None:
    rows = frozen_rows(TINY).float()
    number = {spelling: i for i, spelling in enumerate(spellings(TINY.vocab_size))}

    def alike(one: bytes, other: bytes) -> float:
        return float(rows[number[one]] @ rows[number[other]]) / TINY.hidden_size

    word, class_alone, neither = (alike(b" Paris", it) for it in (b"Paris", b" London", b"12"))
    assert word > class_alone + 0.1 > neither + 0.3
    assert alike(b" House", b"house") > neither + 0.3


@pytest.mark.parametrize(
    ("spelling", "case"),
    [
        (b" Paris", "title"),
        (b"paris", "lower"),
        (b" NASA", "upper"),
        (b"12", "digits"),
        (b"iPhone", "other"),
        (b" {", "other"),
        (b"\xc3", "other"),
    ],
)
def test_case_is_told_from_ascii(spelling: bytes, case: str) -> None:
    assert case_of(spelling) == case
