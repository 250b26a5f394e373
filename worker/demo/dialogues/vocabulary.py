"""Words that are one token each, with and without a space before them. `chance` draws from them.

A model learns to copy what it has never seen only if what it copies is made of whole tokens: the
tokenizer cuts other words differently at the start of a line and within it.
"""

import json
import re
from dataclasses import dataclass
from functools import cache

from worker.model.tiny import tokenizer_file

# Of each: enough that copying is learned rather than words, few enough that every row is trained.
MOST_LOWER, MOST_CAPITAL = 2_400, 1_200
SPACE = "Ġ"  # how byte-level BPE spells it


@dataclass(frozen=True, slots=True)
class Words:
    """In the order of the vocabulary, common ones first."""

    lower: tuple[str, ...]
    capital: tuple[str, ...]


@cache
def words() -> Words:
    """Of DeepSeek's vocabulary, whose release is pinned: always the same words."""
    vocabulary = json.loads(tokenizer_file().read_text(encoding="utf-8"))["model"]["vocab"]
    lower = _both(vocabulary, r"[a-z]{3,9}")
    capital = _both(vocabulary, r"[A-Z][a-z]{2,9}")
    return Words(lower[:MOST_LOWER], capital[:MOST_CAPITAL])


def _both(vocabulary: dict[str, int], shape: str) -> tuple[str, ...]:
    pattern = re.compile(SPACE + shape)
    spaced = [token for token in vocabulary if pattern.fullmatch(token)]
    spaced.sort(key=vocabulary.__getitem__)
    return tuple(token[1:] for token in spaced if token[1:] in vocabulary)
