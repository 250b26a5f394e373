"""`python -m benchmarks.money.recovery`: how long a journal of some size takes to come back.

What a gateway's death costs (`recover`: read, stage), and what a lost hour costs (`restore`: read,
hold again, stage, settle, hash). Needs `tests` on PYTHONPATH for starting the server.
"""

import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.money.world import MODEL, World, build, server
from controlplane.accounts import epochs
from controlplane.billing.restoring.restore import restore
from controlplane.db import uuid7
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


def _recovered(world: World, sessions: sessionmaker[Session], path: Path) -> float:
    directory = JournalDir(path)
    started = time.perf_counter()
    recover(sessions, directory, GATEWAY)
    directory.close()
    return time.perf_counter() - started


def main(
    mib: Annotated[int, typer.Option(min=1, help="Size of the journal.")] = 1024,
) -> None:
    """Time the way back from a journal, fsync on; the server shares this machine's cores."""
    folder = Path(tempfile.mkdtemp(prefix="recovery-bench-"))
    try:
        with server(folder) as postgres:
            _measure(build(postgres, "recovery", customers=100), folder, mib)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(world: World, folder: Path, mib: int) -> None:
    sessions = world.sessions()
    lost = folder / "lost"
    requests = write(world, lost / str(uuid7()), mib * 2**20, amount_p=10**10)
    typer.echo(f"{mib} MiB, {requests:,} requests with {PROGRESSES} progresses each")
    started = time.perf_counter()
    done = restore(sessions, folders=[lost])
    seconds = time.perf_counter() - started
    assert (done.billed, done.set_aside, done.violations) == (requests, [], [])
    typer.echo(f"restored and settled: {seconds:,.1f} s, {requests / seconds:,.0f} requests/s")
    started = time.perf_counter()
    again = restore(sessions, folders=[lost])
    seconds = time.perf_counter() - started
    assert (again.billed, again.ledger) == (0, done.ledger)
    typer.echo(f"nothing left to do: {seconds:,.1f} s, {requests / seconds:,.0f} requests/s")
    with sessions.begin() as session:
        epoch_id = epochs.begin(session, GATEWAY)
    path = folder / "dead"
    path.mkdir()
    requests = write(world, path / str(epoch_id), mib * 2**20, amount_p=None)
    seconds = _recovered(world, sessions, path)
    typer.echo(f"a gateway's start: {seconds:,.1f} s, {requests / seconds:,.0f} requests/s")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    typer.echo(f"most memory: {most:,} MiB")


if __name__ == "__main__":
    typer.run(main)
