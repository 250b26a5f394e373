"""`python -m benchmarks.money`: holds and settlement on an embedded PostgreSQL, one table.

Needs `tests` on PYTHONPATH for starting the server; `make bench-money` sees to it.
"""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.money import bare, invoices, measures, recovery, usage_queries
from benchmarks.money.results import Figure, as_markdown, as_table
from benchmarks.money.world import build, server
from controlplane.gateway.holding import MAX_BATCH
from controlplane.supervisor.postgres import Postgres


def figures(postgres: Postgres, *, count: int) -> Iterator[Figure]:
    """Run all measurements in order, each on a database of its own."""
    for name, customers, aim in (("hot", 1, 3_000), ("many", 1_000, 10_000)):
        world = build(postgres, f"{name}_pairs", customers=customers)
        bare.prepare(world.url, customers)
        floor = bare.pairs_per_second(world.url, accounts=customers, count=count, batch=MAX_BATCH)
        found = measures.pairs(world, count=count)
        case = "on one account" if customers == 1 else f"on {customers:,} accounts"
        yield Figure(
            f"hold and settle {case}", found.pairs_per_second, "pairs/s", aim=aim, floor=floor
        )
        yield Figure(
            f"a batch of {MAX_BATCH} holds {case} meanwhile, p99",
            found.hold_p99_seconds * 1000,
            "ms",
            less_is_better=True,
        )
    world = build(postgres, "rows", customers=1_000)
    bare.prepare(world.url, 1_000)
    yield from measures.rows(world, count=count)
    # A million at the usual size; what one costs does not fall with their number.
    events = 25 * count
    world = build(postgres, "invoices", customers=0)
    seconds = invoices.seconds(world.url, events=events)
    yield Figure(f"an invoice of {events:,} requests", seconds, "s", aim=10, less_is_better=True)


def of_long_histories(
    postgres: Postgres, folder: Path, *, events: int, mib: int
) -> Iterator[Figure]:
    """Run what takes minutes to prepare, where it is asked for."""
    if events:
        world, since = usage_queries.filled(postgres, events)
        yield from usage_queries.figures(world, events, since)
    if mib:
        yield from recovery.figures(postgres, folder, mib=mib, restored_mib=max(1, mib // 16))


def main(
    count: Annotated[int, typer.Option(min=1_000, help="Requests of each case.")] = 40_000,
    quick: Annotated[bool, typer.Option("--quick", help="4,000 requests: seconds.")] = False,
    events: Annotated[
        int,
        typer.Option(help="Ask about usage on so many too: 10,000,000 take 10 minutes and 8 GB."),
    ] = 0,
    mib: Annotated[
        int,
        typer.Option(
            help="Start after a journal of so many MiB too, and restore from a sixteenth of it:"
            " 1,024 take 10 minutes and 4 GB."
        ),
    ] = 0,
) -> None:
    """Measure what holding, staging and settling cost, fsync on, in two processes.

    The server, the gateway's part and settlement share this machine's cores.
    """
    folder = Path(tempfile.mkdtemp(prefix="money-bench-"))
    measured: list[Figure] = []
    try:
        with server(folder) as postgres:
            for figure in chain(
                figures(postgres, count=4_000 if quick else count),
                of_long_histories(postgres, folder, events=events, mib=mib),
            ):
                typer.echo(f"{figure.case}: {figure.value:,.0f} {figure.unit}", err=True)
                measured.append(figure)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Console().print(as_table(measured))
    typer.echo(f"\nPython {platform.python_version()}\n\n{as_markdown(measured)}")


if __name__ == "__main__":
    typer.run(main)
