"""`python -m benchmarks.kernels`: every row of kernels, one table."""

from collections.abc import Callable
from typing import Annotated

import torch
import typer

from benchmarks.engine.models import FLASH
from benchmarks.engine.results import environment
from benchmarks.kernels import attention, compress, index, streams, table
from benchmarks.kernels.case import Row
from benchmarks.kernels.timing import Limits, Times, limits, measure
from worker.kernels.devices import is_hopper_or_later
from worker.kernels.load import KernelBackend, load_backend

ROWS = sorted(
    (*attention.ROWS, *index.ROWS, *compress.ROWS, *streams.ROWS), key=lambda row: row.number
)


def chosen(numbers: str | None) -> list[Row]:
    """The rows of a list like "1,3"; "2" means 2a and 2b. Raises SystemExit."""
    if numbers is None:
        return ROWS
    asked = numbers.split(",")
    found = [r for r in ROWS if r.number in asked or r.number.rstrip("ab") in asked]
    if not found:
        raise SystemExit(f"no row of {numbers!r}; known: {', '.join(r.number for r in ROWS)}")
    return found


def line(row: Row, backend: KernelBackend, device: Limits, rounds: int) -> str:
    """Check, then time. Raises SystemExit where ours is wrong: its time would mean nothing."""
    case = row.case(backend, "cuda")
    error = case.error()
    if not error <= case.tolerance:
        raise SystemExit(f"row {row.number}: error {error:.1e} is above {case.tolerance:.1e}")
    found = table.Measured(
        case,
        ours=measure(case.ours, rounds),
        torch=_rival(case.reference, rounds),
        compiled=_rival(torch.compile(case.reference), rounds),
        error=error,
    )
    return table.measured(row, found, device)


def _rival(run: Callable[[], object], rounds: int) -> Times | None:
    """Its times; None where it takes more memory than there is."""
    try:
        return measure(run, rounds)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def main(
    rows: Annotated[str | None, typer.Option(help="Only these, like 1,3; else all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="20 rounds each instead of 200.")] = False,
) -> None:
    """Measure the Triton kernels against this GPU's copy bandwidth and matrix rate, torch's plain
    operations and torch.compile, with CUDA graphs and a cold L2 cache. Each is checked first.

    Without a Hopper GPU the table says what would be measured.
    """
    asked = chosen(rows)
    told = environment()
    if not (torch.cuda.is_available() and is_hopper_or_later("cuda")):
        typer.echo("no CUDA device of compute capability 9.0 or above: nothing is measured\n")
        typer.echo("\n".join([*table.head(), *map(table.unmeasured, asked)]))
        return
    rounds = 20 if quick else 200
    backend, device = load_backend("triton", FLASH, "cuda"), limits(rounds)
    typer.echo(
        f"{told['date']}, {torch.cuda.get_device_name()}, torch {told['torch']}: copies "
        f"{device.bandwidth / 1e12:.2f} TB/s, multiplies {device.flops / 1e12:.0f} TF\n"
    )
    typer.echo("\n".join(table.head()))
    with torch.inference_mode():
        for row in asked:
            typer.echo(line(row, backend, device, rounds))
            torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
