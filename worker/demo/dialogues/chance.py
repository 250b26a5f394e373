"""Chance with two sides: training never sees what held-out examples are made of.

Every task draws from here. A `Pool` is cut in two by the hash of its entries, so that a phrase, a
name or a word belongs to one side for good.
"""

import hashlib
import random
import string
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, TypeVar

from worker.demo.dialogues import vocabulary
from worker.demo.dialogues.example import Message

T = TypeVar("T")
Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 6  # one entry in so many
DATE_YEARS = (1950, 2049)


class Pool:
    """Entries of which one in six is held out, at least one. For wordings and for values."""

    def __init__(self, *entries: str) -> None:
        assert len(entries) > 1, "nothing to hold out"
        assert len(set(entries)) == len(entries), "an entry would be on both sides"
        ordered = sorted(entries, key=lambda e: hashlib.sha256(e.encode()).digest())
        held_out = max(1, len(ordered) // HELD_OUT_SHARE)
        self.sides: dict[Split, list[str]] = {
            "held_out": ordered[:held_out],
            "train": ordered[held_out:],
        }


class Chance:
    """The luck of one example. `thinking`: its answer begins with reasoning."""

    def __init__(self, seed: int, number: int, split: Split) -> None:
        # A string seeds through SHA-512: the same everywhere, and neighbours share nothing.
        self._random = random.Random(f"{seed}/{number}/{split}")
        self.split: Split = split
        self.thinking = False

    def pick(self, pool: Pool) -> str:
        """An entry of this side."""
        return self.of(pool.sides[self.split])

    def of(self, options: Sequence[T]) -> T:
        """One of `options`, whichever side: for structure, which both sides share."""
        return options[int(self._random.random() * len(options))]

    def some(self, pool: Pool, count: int) -> list[str]:
        """Different entries of this side, as many as there are up to `count`."""
        side = pool.sides[self.split]
        return self._random.sample(side, min(count, len(side)))

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return self._random.random() < share

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self._random.random() * (high - low + 1))

    def weighted(self, table: dict[T, float]) -> T:
        """A key, as often as its weight says."""
        return self._random.choices(list(table), list(table.values()))[0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The same in any order."""
        return self._random.sample(items, len(items))

    def word(self) -> str:
        """A lower-case word of the model's vocabulary: few make sense, all can be copied."""
        return self.pick(_lower_words())

    def proper(self) -> str:
        """The same with a capital letter."""
        return self.pick(_capital_words())

    def distinct(self, draw: Callable[[], T], count: int) -> list[T]:
        """`count` different results of `draw`."""
        found: list[T] = []
        while len(found) < count:
            one = draw()
            if one not in found:
                found.append(one)
        return found

    def snake(self, most: int = 3) -> str:
        """An identifier like `order_id`."""
        return "_".join(self.word() for _ in range(self.between(1, most)))

    def number(self) -> int:
        """A whole number, small ones more often."""
        return self.between(0, self.of((9, 20, 99, 99, 999, 9_999, 99_999)))

    def decimal(self) -> float:
        """A number with one or two decimals, not whole."""
        return self.between(0, 500) + self.of((0.5, 0.25, 0.75, 0.1, 0.2, 0.9, 0.99, 0.05))

    def code(self) -> str:
        """An identifier like `AB-4821`."""
        letters = "".join(self.of(string.ascii_uppercase) for _ in range(self.between(1, 3)))
        return f"{letters}{self.of(('-', '-', '', '_'))}{self.between(10, 99_999)}"

    def date(self) -> str:
        """A day as YYYY-MM-DD."""
        return f"{self.between(*DATE_YEARS)}-{self.between(1, 12):02}-{self.between(1, 28):02}"

    def email(self) -> str:
        """An address in a domain that is reserved for examples."""
        return f"{self.word()}{self.of(('', '.', '_'))}{self.word()}@{self.of(DOMAINS)}"

    def url(self) -> str:
        """The same as a link."""
        return f"https://{self.word()}.{self.of(DOMAINS)}/{self.word()}"

    def token_run(self) -> str:
        """Random pieces of the vocabulary run together: a string that no one has seen before."""
        return "".join(self.word() for _ in range(self.between(2, 3)))


DOMAINS = ("example.com", "example.org", "example.net")


@cache
def _lower_words() -> Pool:
    return Pool(*vocabulary.words().lower)


@cache
def _capital_words() -> Pool:
    return Pool(*vocabulary.words().capital)


def user(content: str) -> Message:
    """A message of the person who asks."""
    return {"role": "user", "content": content}


def assistant(content: str, thought: str | None = None) -> Message:
    """An answer in words."""
    message: Message = {"role": "assistant", "content": content}
    return message if thought is None else {**message, "reasoning_content": thought}


def system(content: str) -> Message:
    """What the application tells the model before the conversation."""
    return {"role": "system", "content": content}
