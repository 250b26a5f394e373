"""Rows of the vocabulary that nobody has to store, and which rows learn.

The whole vocabulary has 129,280 tokens; the dialogues use some thousands of them often enough to
learn their rows. The others keep the row they begin with, made from counters: the install makes the
same row that training saw. Embedding and head are tied in training, so such a row is enough to copy
a token that was never met.

A row tells how its token is spelled: " Paris", "Paris" and "paris" share most of it, the first two
their case, and all that begin with a space that. What is learned about writing one form where
another was read hence holds for words that were never trained. The rest is the token's own.

Randomness is the raw output of Philox, which NumPy keeps the same between versions, and what is
made of it is exact: integers, and a correctly rounded root and quotient. A row is the same on every
machine.
"""

from collections.abc import Iterator, Mapping

import numpy
import torch

from worker.config import ModelConfig
from worker.encoding.tokenizer import Tokenizer
from worker.model.tiny import tokenizer_file

OWN_KEY, TABLE_KEY = 0x6465_6D6F, 0x6861_7368  # of the streams of random numbers
WORD_KEY, SPACE_KEY, CASE_KEY = 0x776F_7264, 0x7370_6163, 0x6361_7365
COMMON_KEY = 0x636F_6D6D
SUMMANDS = 4  # 16-bit uniform numbers, whose sum is nearly normal
# Their squares are as what a row owes to its word, its space, its case, itself alone, and nothing.
WORD, SPACE, CASE, OWN, COMMON = 10, 5, 5, 7, 8
CASES = ("other", "digits", "lower", "upper", "title")
PART = 8_192  # rows made at a time; the integers of all would be large


def frozen_rows(config: ModelConfig) -> torch.Tensor:
    """[vocab, D] bfloat16, nearly Gaussian of unit variance and all equally long. Raises
    ConfigError if the tokenizer is not installed."""
    spelled = spellings(config.vocab_size)
    width = config.hidden_size
    first: dict[bytes, int] = {}
    leader = [first.setdefault(s.strip().lower() or s, i) for i, s in enumerate(spelled)]
    space = [int(s[:1].isspace()) for s in spelled]
    case = [CASES.index(case_of(s)) for s in spelled]
    words = numpy.concatenate(list(_normal(WORD_KEY, config.vocab_size, width)))
    (spaces,), (cases,) = _normal(SPACE_KEY, 2, width), _normal(CASE_KEY, len(CASES), width)
    (common,) = _normal(COMMON_KEY, 1, width)
    rows = torch.empty(config.vocab_size, width, dtype=torch.bfloat16)
    begin = 0
    for own in _normal(OWN_KEY, config.vocab_size, width):
        part = slice(begin, begin + len(own))
        sums = WORD * words[leader[part]].astype(numpy.int64) + OWN * own
        sums += SPACE * spaces[space[part]] + CASE * cases[case[part]] + COMMON * common
        length = numpy.sqrt(numpy.square(sums).sum(1, keepdims=True) / width)
        rows[part] = torch.from_numpy((sums / length).astype(numpy.float32))
        begin += len(own)
    return rows


def common_direction(width: int) -> torch.Tensor:
    """[width] float32 of length one: what all rows have a share of."""
    (common,) = _normal(COMMON_KEY, 1, width)
    direction: torch.Tensor = torch.from_numpy(common[0].astype(numpy.float32))
    return direction.div_(direction.norm())


def spellings(count: int) -> list[bytes]:
    """The bytes of the tokenizer's first `count` tokens."""
    tokenizer = Tokenizer(tokenizer_file())
    return [tokenizer.token_bytes(i) for i in range(count)]


def case_of(spelling: bytes) -> str:
    """One of CASES; only ASCII letters and digits count, as they do in any version of Unicode."""
    text = spelling.strip()
    if text.isdigit():
        return "digits"
    if text.islower():
        return "lower"
    if text.istitle() and len(text) > 1:
        return "title"
    return "upper" if text.isupper() else "other"


def _normal(key: int, rows: int, width: int) -> Iterator[numpy.ndarray]:
    """Parts of [rows, width] int32, nearly Gaussian about zero."""
    stream = numpy.random.Philox(key=key)
    for begin in range(0, rows, PART):
        count = min(PART, rows - begin)
        words = stream.random_raw(count * width).view(numpy.uint16).reshape(-1, SUMMANDS)
        sums = words.sum(1, dtype=numpy.int32) - SUMMANDS * 0xFFFF // 2
        yield sums.reshape(count, width)


def hash_table(config: ModelConfig) -> torch.Tensor:
    """[hash layers, vocab, k] expert ids, distinct for each token: tables `tid2eid`."""
    stream = numpy.random.Philox(key=TABLE_KEY)
    shape = (config.num_hash_layers, config.vocab_size, config.n_routed_experts)
    order = stream.random_raw(shape[0] * shape[1] * shape[2]).reshape(shape)
    chosen = order.argsort(axis=-1, kind="stable")[..., : config.num_experts_per_tok]
    return torch.from_numpy(numpy.ascontiguousarray(chosen))


def frequent(counts: Mapping[int, int], *, least: int, most: int) -> list[int]:
    """The ids that occur `least` times or more, the `most` most frequent of them, ascending."""
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return sorted(token for token, count in ranked[:most] if count >= least)
