"""The journal on a real disk: durability, ownership, retirement, a full disk."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.replaying import read
from support.shop import final, progress
from support.tiny_disk import tiny_disk

from controlplane.db import uuid7
from controlplane.errors import StartupError
from controlplane.usage.journal import Journal, JournalDir, JournalFull
from controlplane.usage.records import Opened, TokenUsage


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[JournalDir]:
    directory = JournalDir(tmp_path / "journal")
    yield directory
    directory.close()


def opened(request_id: uuid.UUID) -> Opened:
    zero = uuid.UUID(int=0)
    return Opened(request_id, zero, zero, "m", "serverless", False, True, zero, 1)


async def test_what_was_written_is_read_back(directory: JournalDir) -> None:
    epoch_id, request_id = uuid7(), uuid7()
    journal = Journal(directory, epoch_id)
    journal.append(opened(request_id))
    journal.append(progress(request_id, TokenUsage(output_tokens=1)))
    trace = await journal.final(final(request_id, TokenUsage(output_tokens=2)))
    await journal.close()
    assert read(directory.folder(epoch_id)).traces == {request_id: trace}


async def test_finals_written_together_share_a_sync(directory: JournalDir) -> None:
    journal = Journal(directory, uuid7())
    request_ids = [uuid7() for _ in range(100)]
    for request_id in request_ids:
        journal.append(opened(request_id))
    traces = await asyncio.gather(
        *(journal.final(final(request_id, TokenUsage())) for request_id in request_ids)
    )
    assert [trace.opened.request_id for trace in traces] == request_ids
    await journal.close()


async def test_a_cancelled_final_does_not_stop_the_others(directory: JournalDir) -> None:
    journal = Journal(directory, uuid7())
    first, second = uuid7(), uuid7()
    journal.append(opened(first))
    journal.append(opened(second))
    gone = asyncio.create_task(journal.final(final(first, TokenUsage())))
    await asyncio.sleep(0)
    gone.cancel()
    trace = await journal.final(final(second, TokenUsage()))
    assert trace.finish_reason == "stop"
    assert journal.trace(first).finish_reason == "stop"
    await journal.close()


async def test_segments_go_when_all_their_requests_are_staged(directory: JournalDir) -> None:
    epoch_id = uuid7()
    journal = Journal(directory, epoch_id, segment_bytes=500)
    request_ids = [uuid7() for _ in range(20)]
    for request_id in request_ids:
        journal.append(opened(request_id))
        await journal.final(final(request_id, TokenUsage(output_tokens=1)))
    before = len(list(directory.folder(epoch_id).iterdir()))
    journal.retire(request_ids[:-1])
    after = len(list(directory.folder(epoch_id).iterdir()))
    assert before > 5
    assert after <= 2
    assert request_ids[-1] in read(directory.folder(epoch_id)).traces
    await journal.close()


async def test_a_segment_stays_while_one_request_is_not_staged(directory: JournalDir) -> None:
    epoch_id = uuid7()
    journal = Journal(directory, epoch_id, segment_bytes=500)
    running, *ended = [uuid7() for _ in range(20)]
    journal.append(opened(running))
    for request_id in ended:
        journal.append(opened(request_id))
        await journal.final(final(request_id, TokenUsage()))
    journal.retire(ended)
    assert running in read(directory.folder(epoch_id)).traces
    await journal.close()


def test_a_folder_has_one_owner(directory: JournalDir) -> None:
    with pytest.raises(StartupError, match=f"pid {os.getpid()}"):
        JournalDir(directory.path)


def test_a_dead_owners_folder_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from controlplane.usage.journal import JournalDir;"
        "JournalDir(Path(sys.argv[1])); print('owned', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == "owned\n"
        with pytest.raises(StartupError):
            JournalDir(tmp_path)
        child.kill()
        child.wait()
    JournalDir(tmp_path).close()


def test_the_folder_is_private(directory: JournalDir) -> None:
    assert directory.path.stat().st_mode & 0o777 == 0o700


async def test_a_full_disk_is_told_and_hides_nothing(directory: JournalDir) -> None:
    epoch_id, before, refused, after = uuid7(), uuid7(), uuid7(), uuid7()
    journal = Journal(directory, epoch_id)
    journal.append(opened(before))
    written = sum(path.stat().st_size for path in directory.folder(epoch_id).iterdir())
    with tiny_disk(written + 20):
        with pytest.raises(JournalFull):
            journal.append(opened(refused))
        with pytest.raises(JournalFull):
            journal.append(opened(refused))
    journal.append(opened(after))
    await journal.close()
    replay = read(directory.folder(epoch_id))
    assert replay.traces.keys() == {before, after}
    assert replay.damages == []


async def test_free_space_is_the_disks(directory: JournalDir) -> None:
    journal = Journal(directory, uuid7())
    assert journal.free_bytes() > 0
    await journal.close()
