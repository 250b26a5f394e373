"""One line of Markdown per row: ours in the row's unit, beside limits, aims and rivals."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.kernels.case import Case, Row
from benchmarks.kernels.timing import Limits, Times

UNMEASURED = "unmeasured"
COLUMNS = ("row", "operation", "ours", "p95", "floor", "of floor", "error")
AIMS = ("first aim", "goal", "met", "torch", "torch.compile", "packages")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row's times; a rival's is None where it does not run at this size."""

    case: Case
    ours: Times
    torch: Times | None
    compiled: Times | None
    error: float


def head() -> list[str]:
    return [_line((*COLUMNS, *AIMS)), _line("-" for _ in (*COLUMNS, *AIMS))]


def unmeasured(row: Row) -> str:
    """A row on a machine that has no GPU for it."""
    cells = [UNMEASURED] * 5
    return _line([row.number, row.title, *cells, *_aims(row), *[UNMEASURED] * 3, _packages(row)])


def measured(row: Row, found: Measured, limits: Limits) -> str:
    """A row with figures. What was not replayed from a CUDA graph has a star."""
    case, ours = found.case, found.ours
    floor = limits.floor(case.moved_bytes, case.flops)
    value = in_unit(row, case, limits, ours.median)
    met = value <= row.aim if row.unit == "us" else value >= row.aim
    rivals = [
        _told(row, case, limits, t.median) + "*" * (not t.graph) if t else "does not run"
        for t in (found.torch, found.compiled)
    ]
    cells = [
        _told(row, case, limits, ours.median) + "*" * (not ours.graph),
        _told(row, case, limits, ours.p95),
        f"{floor:.1f} us",
        f"{floor / ours.median:.0%}",
        f"{found.error:.1e}",
    ]
    told = "yes" if met else "**no**"
    return _line([row.number, row.title, *cells, *_aims(row), told, *rivals, _packages(row)])


def in_unit(row: Row, case: Case, limits: Limits, microseconds: float) -> float:
    """A time as the row counts it."""
    if row.unit == "us":
        return microseconds
    if row.unit == "TF":
        return case.flops / microseconds / 1e6
    return 100 * case.moved_bytes / limits.bandwidth / microseconds * 1e6


def _told(row: Row, case: Case, limits: Limits, microseconds: float) -> str:
    value = f"{in_unit(row, case, limits, microseconds):.1f} {row.unit}"
    return value if row.unit == "us" else f"{value}, {microseconds:.1f} us"


def _aims(row: Row) -> Sequence[str]:
    sign = "<=" if row.unit == "us" else ">="
    return f"{sign} {row.aim:g} {row.unit}", f"{sign} {row.goal:g} {row.unit}"


def _packages(row: Row) -> str:
    """Rivals that would have to be installed; none of them is called yet."""
    told = (
        f"{name} {'not compared' if importlib.util.find_spec(name) else 'not installed'}"
        for name in row.rivals
    )
    return ", ".join(told)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
