"""Kept segments are never the reason for a full disk."""

import os
import time
from pathlib import Path

import pytest

from controlplane.db import uuid7
from controlplane.usage.kept import FOLDER, Kept
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


class Disk:
    """A disk of a size, as `os.statvfs` tells it, with nothing on it but kept segments."""

    f_frsize = 1

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path, self._size_bytes = path, size_bytes

    @property
    def f_bavail(self) -> int:
        return self._size_bytes - sum(it.stat().st_size for it in self._path.glob(f"{FOLDER}/*/*"))


def test_kept_segments_take_half_of_what_is_free_beyond_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(tmp_path, 1_200))
    kept = Kept(tmp_path, keep_seconds=HOUR, reserve_bytes=200)
    for number in range(1, 10):
        kept.take(segment(tmp_path / "live", number, size_bytes=100), uuid7())
    assert kept_in(tmp_path) == [f"{number:010d}" for number in range(5, 10)]


def test_when_others_fill_the_disk_the_oldest_go_until_the_reserve_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, keep_seconds=HOUR, reserve_bytes=200)
    for number in range(1, 6):
        kept.take(segment(tmp_path / "live", number, size_bytes=100), uuid7())
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(tmp_path, 500))
    assert kept.free_bytes() == 200
    assert kept_in(tmp_path) == ["0000000003", "0000000004", "0000000005"]
