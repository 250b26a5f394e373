"""`python -m benchmarks.money.recovery`: how long a journal of some size takes to come back.

What a gateway's death costs (`recover`: read, stage), and what a lost hour costs (`restore`: read,
hold again, stage, settle, hash). Needs `tests` on PYTHONPATH for starting the server.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.money.results import Figure, as_markdown, as_table
from benchmarks.money.world import MODEL, World, build, server
from controlplane.accounts import epochs
from controlplane.billing.restoring.restore import Restored, restore
from controlplane.db import uuid7
from controlplane.supervisor.postgres import Postgres
from controlplane.usage.journal import JournalDir
from controlplane.usage.records import Final, Opened, Progress, Record, TokenUsage
from controlplane.usage.recovery import recover
from controlplane.usage.segments import frame, segment_path

GATEWAY = "benchmark"
SEGMENT_BYTES = 16 * 2**20
STARTED_AT_US = 1_790_000_000_000_000
PROGRESSES = 10  # reads of an answer that were forwarded


def write(world: World, folder: Path, size_bytes: int, *, amount_p: int | None) -> int:
    """Write a journal of about that size into a folder; return its requests.

    Without an amount they look as if their holds were there, which a start asks for.
    """
    folder.mkdir(parents=True)
    requests, written, number = 0, 0, 0
    while written < size_bytes:
        number += 1
        segment = bytearray()
        while len(segment) < min(SEGMENT_BYTES, size_bytes - written):
            for record in _request(world, requests, amount_p):
                segment += frame(record)
            requests += 1
        segment_path(folder, number).write_bytes(segment)
        written += len(segment)
    return requests


def _request(world: World, number: int, amount_p: int | None) -> list[Record]:
    customer = world.customers[number % len(world.customers)]
    request_id, at_us = uuid7(), STARTED_AT_US + number * 1_000
    opened = Opened(
        request_id=request_id,
        tenant_id=customer.tenant_id,
        api_key_id=customer.api_key_id,
        model=MODEL,
        path="serverless",
        thinking=False,
        streamed=True,
        price_version_id=world.price.version_id,
        started_at_us=at_us,
        prompt_tokens=1_000,
        completion_tokens=500,
        amount_p=amount_p,
    )
    reads = [
        Progress(request_id, "replica-1", TokenUsage(500, 300, 10 * it, 0), at_us + it)
        for it in range(1, PROGRESSES + 1)
    ]
    end = Final(request_id, "replica-1", TokenUsage(500, 300, 110, 10), "stop", at_us, at_us + 99)
    return [opened, *reads, end]


def figures(postgres: Postgres, folder: Path, *, mib: int, restored_mib: int) -> Iterator[Figure]:
    """Time the start of a gateway that left `mib` MiB, and a restore from `restored_mib` MiB.

    All in this process, so that its memory is theirs.
    """
    world = build(postgres, "start", customers=100)
    sessions = world.sessions()
    dead = folder / "dead"
    with sessions.begin() as session:
        epoch_id = epochs.begin(session, GATEWAY)
    requests = write(world, dead / str(epoch_id), mib * 2**20, amount_p=None)
    yield from _told("start", mib, requests, lambda: _recovered(sessions, dead))
    world = build(postgres, "restore", customers=100)
    sessions = world.sessions()
    lost = folder / "lost"
    requests = write(world, lost / str(uuid7()), restored_mib * 2**20, amount_p=10**10)
    for what in ("restore", "restore again"):
        done: list[Restored] = []
        yield from _told(
            what,
            *(restored_mib, requests),
            lambda done=done: done.append(restore(sessions, folders=[lost])),  # type: ignore[misc]
        )
        assert done[0].billed == (requests if what == "restore" else 0)
        assert (done[0].set_aside, done[0].violations) == ([], [])


def _told(what: str, mib: int, requests: int, act: Callable[[], object]) -> Iterator[Figure]:
    before = _most_memory()
    started = time.perf_counter()
    act()
    seconds = time.perf_counter() - started
    case = f"{what}, journal of {mib:,} MiB with {requests:,} requests"
    yield Figure(case, seconds, "s")
    yield Figure(f"{what}, journal read", mib / seconds, "MiB/s")
    yield Figure(f"{what}, requests", requests / seconds, "/s")
    yield Figure(f"{what}, memory beyond the most before", _most_memory() - before, "MiB")


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _recovered(sessions: sessionmaker[Session], path: Path) -> None:
    directory = JournalDir(path)
    recover(sessions, directory, GATEWAY)
    directory.close()


def main(
    mib: Annotated[int, typer.Option(min=1, help="Journal of a gateway that starts.")] = 1024,
    restored_mib: Annotated[int, typer.Option(min=1, help="Journal to restore from.")] = 64,
) -> None:
    """Time the way back from a journal, fsync on; the server shares this machine's cores."""
    folder = Path(tempfile.mkdtemp(prefix="recovery-bench-"))
    found: list[Figure] = []
    try:
        with server(folder) as postgres:
            for figure in figures(postgres, folder, mib=mib, restored_mib=restored_mib):
                typer.echo(f"{figure.case}: {figure.value:,.1f} {figure.unit}", err=True)
                found.append(figure)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Console().print(as_table(found))
    typer.echo(as_markdown(found))


if __name__ == "__main__":
    typer.run(main)
