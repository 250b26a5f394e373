"""A process killed in the middle of writing its journal loses nothing that it had written."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.replaying import read
from support.shop import GATEWAY, Shop, cost_p

from controlplane.usage import events
from controlplane.usage.journal import JournalDir
from controlplane.usage.records import TokenUsage
from controlplane.usage.recovery import recover

# Writes ever higher usage of one request and tells each figure after it was written.
WRITER = """
import sys, time, uuid
from pathlib import Path
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.records import Opened, Progress, TokenUsage
import asyncio

async def main(path, epoch, request_id, tenant_id, key_id, price_id):
    journal = Journal(JournalDir(Path(path)), uuid.UUID(epoch), segment_bytes=4096)
    request_id = uuid.UUID(request_id)
    journal.append(Opened(request_id, uuid.UUID(tenant_id), uuid.UUID(key_id), "m", "serverless",
                          False, True, uuid.UUID(price_id), 1))
    output = 0
    while True:
        output += 1
        journal.append(Progress(request_id, "r", TokenUsage(0, 1, output, 0), 1))
        print(output, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("lines", [1, 50, 333])
def test_a_kill_in_mid_append_bills_at_least_what_was_acknowledged(
    shop: Shop, tmp_path: Path, lines: int
) -> None:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer, max_tokens=10**6)
    arguments = [tmp_path, shop.epoch_id, request_id, customer.tenant_id, customer.api_key_id]
    last = _write_until_killed([*arguments, shop.price.version_id], lines)
    directory = JournalDir(tmp_path)
    replay = read(directory.folder(shop.epoch_id))
    written = replay.traces[request_id].usage.output_tokens
    assert written >= last
    assert replay.damages == []
    recover(shop.sessions, directory, GATEWAY)
    directory.close()
    shop.settle()
    assert shop.balance(customer).balance_p == 10**12 - cost_p(TokenUsage(0, 1, written, 0))
    assert shop.books().violations == []


def _write_until_killed(arguments: list[object], lines: int) -> int:
    """Return the last figure the writer acknowledged before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, child.stdout:
        for _ in range(lines):
            last = int(child.stdout.readline())
        child.kill()
    return last


def test_a_recovery_killed_at_any_statement_can_be_repeated(shop: Shop, tmp_path: Path) -> None:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer, max_tokens=10**6)
    arguments = [tmp_path, shop.epoch_id, request_id, customer.tenant_id, customer.api_key_id]
    _write_until_killed([*arguments, shop.price.version_id], 5)
    url = shop.sessions.kw["bind"].url.render_as_string(hide_password=False)
    for statements in range(1, 12):
        _recover_until_killed(url, tmp_path, statements)
    directory = JournalDir(tmp_path)
    recover(shop.sessions, directory, GATEWAY)
    directory.close()
    shop.settle()
    shop.release_dead()
    with shop.sessions.begin() as session:
        event = events.get(session, tenant_id=customer.tenant_id, request_id=request_id)
    assert event.output_tokens >= 5
    report = shop.books()
    assert report.violations == []
    assert report.open_holds == 0


RECOVERER = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from controlplane.db import open_engine, session_factory
from controlplane.usage.journal import JournalDir
from controlplane.usage.recovery import recover

url, path, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
engine = open_engine(url.replace("postgresql+psycopg", "postgresql"))

@event.listens_for(engine, "after_cursor_execute")
def count(*rest):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

recover(session_factory(engine), JournalDir(path), sys.argv[4])
"""


def _recover_until_killed(url: str, path: Path, statements: int) -> None:
    command = [sys.executable, "-c", RECOVERER, url, str(path), str(statements), GATEWAY]
    assert subprocess.run(command, check=False).returncode in (0, -9)
