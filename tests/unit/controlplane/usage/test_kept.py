"""Kept segments: there for a restore, not for a start."""

import os
import time
import uuid
from pathlib import Path

from support.replaying import read
from support.shop import final

from controlplane.db import uuid7
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.kept import FOLDER, Kept
from controlplane.usage.records import Opened, TokenUsage
from controlplane.usage.segments import segment_path

HOUR = 3600.0


def segment(folder: Path, number: int, *, age_seconds: float = 0.0, size_bytes: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = segment_path(folder, number)
    path.write_bytes(bytes(size_bytes))
    written_at = time.time() - age_seconds
    os.utime(path, (written_at, written_at))
    return path


def kept_in(path: Path) -> list[str]:
    return sorted(it.name[:10] for it in path.glob(f"{FOLDER}/*/*"))


async def test_a_staged_segment_is_kept_and_a_start_does_not_read_it(tmp_path: Path) -> None:
    directory = JournalDir(tmp_path, keep_seconds=HOUR)
    epoch_id, zero = uuid7(), uuid.UUID(int=0)
    journal = Journal(directory, epoch_id, segment_bytes=500)
    request_ids = [uuid7() for _ in range(20)]
    for request_id in request_ids:
        journal.append(Opened(request_id, zero, zero, "m", "serverless", False, True, zero, 1))
        await journal.final(final(request_id, TokenUsage(output_tokens=1)))
    journal.retire(request_ids)
    await journal.close()
    directory.close()
    live, kept = directory.folder(epoch_id), tmp_path / FOLDER / str(epoch_id)
    assert len(read(live).traces) <= 5
    assert directory.epochs() == [epoch_id]
    assert read(kept, live).traces.keys() == set(request_ids)


def test_without_a_time_to_keep_a_segment_is_deleted(tmp_path: Path) -> None:
    path = segment(tmp_path / "live", 1)
    Kept(tmp_path, keep_seconds=0, reserve_bytes=0).take(path, uuid7())
    assert not path.exists()
    assert kept_in(tmp_path) == []


def test_old_segments_go(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep_seconds=HOUR, reserve_bytes=0)
    kept.take(segment(tmp_path / "live", 1, age_seconds=HOUR + 60), uuid7())
    kept.take(segment(tmp_path / "live", 2, age_seconds=HOUR - 600), uuid7())
    assert kept_in(tmp_path) == ["0000000002"]


def test_a_new_owner_goes_on_with_what_is_kept(tmp_path: Path) -> None:
    epoch_id = uuid7()
    first = Kept(tmp_path, keep_seconds=HOUR, reserve_bytes=0)
    first.take(segment(tmp_path / "live", 1), epoch_id)
    first.take(segment(tmp_path / "live", 2, age_seconds=600), epoch_id)
    Kept(tmp_path, keep_seconds=300, reserve_bytes=0)
    assert kept_in(tmp_path) == ["0000000001"]
