"""`python -m benchmarks.engine`: every benchmark of the engine, one table."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.engine import memory, prefix, scheduling, step_time, throughput
from benchmarks.engine.results import Row, as_markdown, environment, write_json


class Name(StrEnum):
    """The benchmarks, in the order in which they run."""

    SCHEDULING = "scheduling"
    STEP_TIME = "step-time"
    THROUGHPUT = "throughput"
    PREFIX_HIT = "prefix-hit"
    STEADY_MEMORY = "steady-memory"


def rows(name: Name, models: Path, *, quick: bool) -> Iterator[Row]:
    """Run one benchmark; `quick` leaves the slim model out and repeats less."""
    sizes = {"tiny": 5} if quick else {"tiny": 21, "slim": 5}  # rounds
    match name:
        case Name.SCHEDULING:
            yield from scheduling.measure(rounds=20 if quick else 200)
        case Name.STEP_TIME:
            for size, rounds in sizes.items():
                yield from step_time.measure(size, models, rounds=rounds)
        case Name.THROUGHPUT:
            for size in sizes:
                yield from throughput.measure(size, models, rounds=4 if size == "tiny" else 2)
        case Name.PREFIX_HIT:
            yield from prefix.measure("tiny", models, rounds=2 if quick else 7)
        case Name.STEADY_MEMORY:
            yield from memory.measure("tiny", models, requests=500 if quick else 5_000)


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny model only, fewer rounds: about 2 minutes.")
    ] = False,
    only: Annotated[
        list[Name] | None, typer.Option(help="Run this benchmark; may be given several times.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ours and of rivals alike.")] = 1,
    models: Annotated[
        Path, typer.Option(help="Where the models are kept between runs: 1.2 GB.")
    ] = Path("build/benchmarks"),
    json: Annotated[
        Path, typer.Option(help="Where the rows go, with versions, date and machine.")
    ] = Path("build/benchmarks/engine.json"),
) -> None:
    """Measure the worker's engine and print one table.

    Every ratio compares two things that were timed in turns in this same run: a step with its own
    matrix products, our tokens per second with those of transformers' `generate`, a prompt that
    is known with one that is not. Times alone depend on the machine; compare ratios. Everything
    together takes about 30 minutes and 12 GB of memory.
    """
    torch.set_num_threads(threads)
    measured: list[Row] = []
    for name in only or list(Name):
        typer.echo(f"{name} ...", err=True)
        measured += rows(name, models, quick=quick)
        write_json(json, measured)  # a run that is broken off keeps what it has
    typer.echo(", ".join(f"{key} {value}" for key, value in environment().items()) + "\n")
    typer.echo(as_markdown(measured))


if __name__ == "__main__":
    typer.run(main)
