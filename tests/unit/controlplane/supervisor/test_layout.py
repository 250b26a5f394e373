"""The data folder: one owner, private files, a wipe that touches only what is ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.processes.files import disk_errors_explained, write_json
from controlplane.supervisor.errors import AlreadyRunning
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


def test_a_folder_below_a_file_is_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(NotADirectoryError),
        disk_errors_explained(tmp_path),
        Layout(tmp_path / "file" / "data").owned(),
    ):
        pass
