"""Private files that are whole or absent, and disks that are full."""

from pathlib import Path

import pytest

from controlplane.errors import StartupError
from controlplane.processes.files import (
    disk_errors_explained,
    fingerprint,
    read_json,
    write_json,
)


def test_json_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": 2})
    assert read_json(path, dict[str, int]) == {"b": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path, dict[str, int]) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_nothing_known(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none", dict[str, int]) is None


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0", "null", '{"a": "b"}'])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "up.json"
    path.write_text(content)
    with pytest.raises(StartupError, match="is damaged: remove it"):
        read_json(path, dict[str, int])


def test_a_fingerprint_tells_replaced_from_untouched(tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    assert fingerprint(path) is None
    write_json(path, {"a": 1})
    before = fingerprint(path)
    assert fingerprint(path) == before
    write_json(path, {"a": 1})
    assert fingerprint(path) != before


def test_a_full_disk_is_a_sentence() -> None:
    with (
        pytest.raises(StartupError, match=r"The disk that holds /dev is full: free some space"),
        disk_errors_explained(Path("/dev")),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
