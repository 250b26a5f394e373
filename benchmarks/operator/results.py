"""What was found: figures with their aims, as a table in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure; met when it is at most its aim."""

    case: str
    value: float
    unit: str
    aim: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        return None if self.aim is None else self.value <= self.aim


def as_markdown(figures: Iterable[Figure]) -> str:
    """Return the table."""
    lines = ["| case | figure | aim | met |", "| - | - | - | - |"]
    for it in figures:
        aim = "" if it.aim is None else f"<= {it.aim:g} {it.unit}"
        met = {None: "", True: "yes", False: "**no**"}[it.met]
        lines.append(f"| {it.case} | {it.value:.3g} {it.unit} | {aim} | {met} |")
    return "\n".join(lines)


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
