"""What was found: figures with their aims and what bare SQL does, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One figure. Rates are met from their aim on, durations up to it.

    `floor` is what the same database does in the same run with the least SQL that could count as
    the same work: without rules, proofs or Python's objects.
    """

    case: str
    value: float
    unit: str
    aim: float | None = None
    floor: float | None = None
    less_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.less_is_better else self.value >= self.aim


_COLUMNS = ("case", "figure", "bare SQL", "ratio", "aim", "met")


def rows(figures: Iterable[Figure]) -> list[tuple[str, ...]]:
    """Return the cells of every figure."""
    return [
        (
            it.case,
            f"{it.value:,.3g} {it.unit}" if it.value < 100 else f"{it.value:,.0f} {it.unit}",
            "" if it.floor is None else f"{it.floor:,.0f}",
            "" if it.floor is None else f"{it.value / it.floor:.2f}",
            "" if it.aim is None else f"{'<=' if it.less_is_better else '>='} {it.aim:,.0f}",
            {None: "", True: "yes", False: "**no**"}[it.met],
        )
        for it in figures
    ]


def as_table(figures: Iterable[Figure]) -> Table:
    """Return the table for a terminal."""
    table = Table(*_COLUMNS)
    for cells in rows(figures):
        table.add_row(*cells)
    return table


def as_markdown(figures: Iterable[Figure]) -> str:
    """Return the table for `benchmarks/README.md`."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' - |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows(figures)]
    return "\n".join(lines)


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
