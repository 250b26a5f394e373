"""What a benchmark found: rows of one table, printed as Markdown and kept as JSON."""

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

HEADINGS = ("benchmark", "model", "case", "ours", "against", "ratio", "spread", "aim", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` is what the aim is about; `ours` and `against` are for the reader.
    `at_most` tells in which direction `aim` binds; None for a figure without an aim."""

    benchmark: str
    model: str
    case: str
    ours: str
    against: str
    ratio: float
    spread: tuple[float, float]
    aim: float | None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def environment() -> dict[str, str | int]:
    """What figures are worth nothing without."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def as_markdown(rows: Iterable[Row]) -> str:
    lines = [HEADINGS, tuple("-" for _ in HEADINGS), *map(_cells, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_json(path: Path, rows: Iterable[Row]) -> None:
    """The environment and every row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "rows": [asdict(r) | {"met": r.met} for r in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.spread
    aim = "" if row.aim is None else f"{'<=' if row.at_most else '>='} {row.aim:g}"
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    ratio, spread = f"{row.ratio:.3g}", f"{low:.3g} to {high:.3g}"
    return row.benchmark, row.model, row.case, row.ours, row.against, ratio, spread, aim, met


def _processor() -> str:
    names = (
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    )
    return f"{next(names, platform.machine())} ({platform.system()})"
