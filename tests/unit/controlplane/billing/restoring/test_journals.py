"""Journals of many lives, read as one story."""

import uuid
from pathlib import Path

import pytest

from controlplane.billing.restoring.journals import Journals, engines
from controlplane.errors import StartupError
from controlplane.usage.records import Final, Opened, Progress, TokenUsage
from controlplane.usage.segments import frame, segment_path
from worker.server.journal_store import JournalStore, Row

NOBODY = uuid.UUID(int=0)
USAGE = TokenUsage(1, 2, 3, 0)
MS = 1_000


def life(begun_ms: int) -> uuid.UUID:
    return uuid.UUID(int=begun_ms << 80 | begun_ms)


def opened(request_id: uuid.UUID, at_us: int = 1) -> bytes:
    return frame(Opened(request_id, NOBODY, NOBODY, "m", "serverless", False, True, NOBODY, at_us))


def ended(number: int, at_us: int) -> bytes:
    request_id = uuid.UUID(int=number)
    return opened(request_id) + frame(Final(request_id, "r", USAGE, "stop", None, at_us))


def write(folder: Path, epoch_id: uuid.UUID, *requests: bytes) -> None:
    (folder / str(epoch_id)).mkdir(parents=True)
    segment_path(folder / str(epoch_id), 1).write_bytes(b"".join(requests))


def told(journals: Journals) -> list[int]:
    return [it.trace.opened.request_id.int for it in journals.told()]


def test_requests_of_lives_that_overlap_come_in_the_order_of_their_ends(tmp_path: Path) -> None:
    write(tmp_path / "one", life(1), ended(1, 2 * MS), ended(3, 6 * MS), ended(5, 9 * MS))
    write(tmp_path / "two", life(4), ended(2, 5 * MS), ended(4, 7 * MS))
    assert told(Journals([tmp_path / "one", tmp_path / "two"])) == [1, 2, 3, 4, 5]


def test_a_request_that_never_ended_comes_at_the_end_of_its_life(tmp_path: Path) -> None:
    cut_off = uuid.UUID(int=7)
    lost = opened(cut_off, 1) + frame(Progress(cut_off, "r", USAGE, MS))
    write(tmp_path, life(1), lost, ended(1, 2 * MS), ended(2, 3 * MS))
    write(tmp_path, life(5), ended(3, 6 * MS))
    assert told(Journals([tmp_path])) == [1, 2, 7, 3]


def test_a_life_is_not_opened_before_the_others_have_come_to_it(tmp_path: Path) -> None:
    write(tmp_path, life(1), ended(1, 2 * MS), ended(2, 3 * MS))
    write(tmp_path, life(8), b"\1\0\0\0" + b"\1" * 100)
    journals = Journals([tmp_path])
    story = journals.told()
    next(story)
    assert journals.damages == []
    assert [it.trace.opened.request_id.int for it in story] == [2]
    assert [it.offset_bytes for it in journals.damages] == [0]


def test_a_clock_that_was_set_back_changes_no_order_within_a_life(tmp_path: Path) -> None:
    write(tmp_path, life(1), ended(1, 9 * MS), ended(2, 3 * MS), ended(3, 10 * MS))
    assert told(Journals([tmp_path])) == [1, 2, 3]


def attempted(path: Path, *attempts: tuple[str, str]) -> Path:
    store = JournalStore(path)
    rows = [
        Row(
            attempt_id=attempt_id,
            request_id=request_id,
            model="m",
            started_us=number,
            prompt_tokens=1,
            prompt_cache_hit_tokens=0,
            prompt_cache_miss_tokens=1,
            completion_tokens=1,
            reasoning_tokens=0,
            resumed_tokens=0,
            finish_reason="stop",
        )
        for number, (attempt_id, request_id) in enumerate(attempts)
    ]
    store.write([], rows)
    store.close()
    return path


def test_attempts_at_a_request_are_told_together_whichever_engine_made_them(tmp_path: Path) -> None:
    first, second = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    files = [
        attempted(tmp_path / "a", ("a1", second), ("a2", first), ("a3", "not ours")),
        attempted(tmp_path / "b", ("b1", first), ("b2", first)),
    ]
    found = [[it.attempt_id for it in attempts] for attempts in engines(files)]
    assert found == [["a2", "b1", "b2"], ["a1"]]


def test_a_file_that_is_no_engines_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing of the kind")
    with pytest.raises(StartupError, match="cannot be read as an engine's journal"):
        list(engines([tmp_path / "a"]))
