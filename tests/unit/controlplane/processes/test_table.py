"""The list of processes: what the next supervisor may believe of a file."""

from pathlib import Path

import pytest

from controlplane.errors import StartupError
from controlplane.processes.process import Identity
from controlplane.processes.table import ProcessTable, read_table

ONE = Identity(pid=1, start_time=2, boot_id="boot")


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    ProcessTable(path).record("one", ONE)
    assert read_table(path) == ProcessTable(path).processes == {"one": ONE}


def test_no_file_lists_nothing(tmp_path: Path) -> None:
    assert read_table(tmp_path / "processes.json") == {}


@pytest.mark.parametrize(
    "content", ['{"one": 1}', '{"one": {"pid": 1}}', '{"one": {"pid": "1", "start_time": 2}}']
)
def test_a_file_of_something_else_is_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "processes.json"
    path.write_text(content)
    with pytest.raises(StartupError, match="is damaged: remove it"):
        read_table(path)
