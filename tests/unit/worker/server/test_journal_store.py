import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_disk import tiny_disk
from support.usage_rows import usage_row

from worker.errors import ConfigError
from worker.server.journal_store import PRUNED_AT_ONCE, JournalStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def test_rows_outlive_the_process(path: Path) -> None:
    store = JournalStore(path)
    store.write([usage_row("a", "r"), usage_row("b", "r", started_us=2)], [])
    store.write([], [usage_row("a", "r", completion_tokens=7, finish_reason="stop")])
    store.close()
    again = JournalStore(path)
    first, second = again.find("r")
    assert (first["completion_tokens"], first["finish_reason"]) == (7, "stop")
    assert second["finish_reason"] == "interrupted"
    assert again.find("unknown") == []
    again.close()


def test_ends_are_read_in_their_order_and_once(path: Path) -> None:
    store = JournalStore(path)
    for i in range(3):
        store.write([usage_row(f"running-{i}", "r")], [usage_row(f"{i}-{j}", "r") for j in (0, 1)])
    seen: list[str] = []
    after = 0
    while page := store.ended_after(after, 4):
        seen += [row["attempt_id"] for row in page]
        after = page[-1]["ended_us"]
    assert seen == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    store.close()


def test_the_cursor_grows_over_a_restart_and_a_clock_set_back(path: Path) -> None:
    store = JournalStore(path)
    store.write([], [usage_row("a", "r")])
    store.close()
    late = 2**52
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE attempts SET ended_us = ?", (late,))
    connection.close()
    store = JournalStore(path)
    store.write([], [usage_row("b", "r")])
    assert [row["attempt_id"] for row in store.ended_after(late, 9)] == ["b"]
    store.close()


def test_prunes_in_portions_what_ended_long_ago(path: Path) -> None:
    store = JournalStore(path)
    ended = [usage_row(str(i), "r") for i in range(PRUNED_AT_ONCE + 5)]
    store.write([usage_row("running", "r")], ended)
    assert not store.prune(0)
    assert store.prune(2**62)
    assert len(store.find("r")) == 6
    assert not store.prune(2**62)
    assert [row["attempt_id"] for row in store.find("r")] == ["running"]
    store.close()


@pytest.mark.parametrize("damage", ["overwritten", "no database at all"])
def test_a_damaged_database_is_set_aside(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = JournalStore(path)
    store.write([], [usage_row(str(i), "r") for i in range(2000)])
    store.close()
    content = bytearray(path.read_bytes())
    if damage == "overwritten":
        content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    else:
        content[:100] = b"not a database".ljust(100)
    path.write_bytes(content)
    store = JournalStore(path)
    assert store.find("r") == []
    store.close()
    (aside,) = path.parent.glob("usage.db.damaged-*")
    assert aside.read_bytes() == bytes(content)
    assert aside.name in caplog.text


def test_another_kind_of_database_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(ConfigError, match="no usage journal"):
        JournalStore(path)
    assert [file.name for file in path.parent.iterdir()] == ["usage.db"]


def test_two_workers_cannot_share_one(path: Path) -> None:
    store = JournalStore(path)
    program = (
        "import sys; from pathlib import Path\n"
        "from worker.errors import ConfigError; from worker.server.journal_store import *\n"
        "try: JournalStore(Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    assert "another worker uses it" in second.stdout
    store.close()


def test_a_file_that_is_removed_is_made_anew(path: Path) -> None:
    store = JournalStore(path)
    store.write([], [usage_row("a", "r")])
    for file in path.parent.iterdir():
        file.unlink()
    store.write([], [usage_row("b", "r")])
    (kept,) = store.find("r")
    store.close()
    again = JournalStore(path)
    assert again.find("r") == [kept]
    again.close()


def test_a_folder_that_is_removed_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    folder.mkdir()
    store = JournalStore(folder / "usage.db")
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            store.write([], [usage_row("a", "r")])
    folder.mkdir()
    store.probe()
    store.write([], [usage_row("a", "r")])
    assert len(store.find("r")) == 1
    store.close()


def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        JournalStore(tmp_path / "missing" / "usage.db")


def test_a_write_that_finds_no_room_leaves_nothing(path: Path) -> None:
    store = JournalStore(path)
    with tiny_disk(path.with_name("usage.db-wal").stat().st_size), pytest.raises(sqlite3.Error):
        store.write([], [usage_row("a", "r")])
    assert store.find("r") == []
    store.write([], [usage_row("a", "r")])
    assert len(store.find("r")) == 1
    store.close()
