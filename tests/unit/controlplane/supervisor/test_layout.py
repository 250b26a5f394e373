"""The data folder: one owner, private files, a wipe that touches only what is ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.supervisor.errors import AlreadyRunning, SupervisorError
from controlplane.supervisor.files import (
    disk_errors_explained,
    fingerprint,
    read_json,
    write_json,
)
from controlplane.supervisor.layout import Layout

HOLD_LOCK = """
import sys
from pathlib import Path
from controlplane.supervisor.layout import Layout
with Layout(Path(sys.argv[1])).owned():
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(tmp_path)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"owned\n"
    with (
        pytest.raises(AlreadyRunning, match=rf"pid {owner.pid}: .*flashplane down"),
        Layout(tmp_path).owned(),
    ):
        pass
    owner.kill()
    owner.communicate()
    with Layout(tmp_path).owned():
        assert (tmp_path / "lock").read_text().strip().isdecimal()


def test_wipe_leaves_what_is_not_ours(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in (layout.postgres / "base", layout.worker_journal.parent):
        folder.mkdir(parents=True)
    write_json(layout.secrets_file, {"key_pepper": "x"})
    (tmp_path / "thesis.txt").write_text("precious")
    layout.wipe()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


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
    with pytest.raises(SupervisorError, match="is damaged: remove it"):
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
        pytest.raises(SupervisorError, match=r"The disk that holds /dev is full: free some space"),
        disk_errors_explained(Path("/dev")),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_folder_below_a_file_is_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(NotADirectoryError),
        disk_errors_explained(tmp_path),
        Layout(tmp_path / "file" / "data").owned(),
    ):
        pass
