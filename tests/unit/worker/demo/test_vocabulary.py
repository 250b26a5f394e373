"""Rows that are not stored are the same ones everywhere."""

import hashlib

import torch
from support.demo_toys import TOY_MODEL

from worker.demo.vocabulary import frequent, hash_table, random_rows


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def test_rows_and_tables_never_change() -> None:
    """A stored model is worth nothing without the very rows it was trained with."""
    assert digest(random_rows(TOY_MODEL)) == "5420b7bd7712d697"
    assert digest(hash_table(TOY_MODEL)) == "d39780b66dc47730"


def test_rows_are_of_unit_variance_and_nobody_elses() -> None:
    rows = random_rows(TOY_MODEL).float()
    assert abs(float(rows.mean())) < 0.02
    assert abs(float(rows.var()) - 1) < 0.02
    likeness = rows @ rows.T / TOY_MODEL.hidden_size
    assert torch.equal(likeness.argmax(1), torch.arange(len(rows)))


def test_hashed_experts_are_distinct() -> None:
    table = hash_table(TOY_MODEL)
    assert table.shape == (TOY_MODEL.num_hash_layers, TOY_MODEL.vocab_size, 2)
    assert bool((table[..., 0] != table[..., 1]).all())
    assert int(table.max()) < TOY_MODEL.n_routed_experts


def test_the_most_frequent_ids_learn() -> None:
    documents = [[9, 9, 9, 7, 7, 5], [7, 5, 3]]
    assert frequent(documents, least=2, most=9) == [5, 7, 9]
    assert frequent(documents, least=1, most=2) == [7, 9]
