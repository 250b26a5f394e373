"""Times two things in turns, so that a noisy machine disturbs both alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of each round, ours and the other's."""

    ours: list[float]
    other: list[float]

    @property
    def ratio(self) -> float:
        """Ours over the other's, median over median."""
        return median(self.ours) / median(self.other)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of one round."""
        ratios = [a / b for a, b in zip(self.ours, self.other, strict=True)]
        return min(ratios), max(ratios)


def compare(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> Comparison:
    """One untimed call of each, then `rounds` of A B, B A, A B, ..."""
    ours(), other()
    comparison = Comparison([], [])
    for i in range(rounds):
        pair = [(ours, comparison.ours), (other, comparison.other)]
        for call, times in pair if i % 2 == 0 else reversed(pair):
            times.append(seconds(call))
    return comparison


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
