"""Reading segments back: torn tails, damage, arbitrary bytes."""

import uuid
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.replaying import read
from support.shop import final, progress

from controlplane.usage.records import Opened, TokenUsage
from controlplane.usage.segments import Damage, ends, frame, segment_path


def opened(request_id: uuid.UUID) -> Opened:
    zero = uuid.UUID(int=0)
    return Opened(request_id, zero, zero, "m", "serverless", False, True, zero, 1)


def write(folder: Path, *segments: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(segments, start=1):
        segment_path(folder, number).write_bytes(data)
    return folder


ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
FIRST = frame(opened(ONE)) + frame(progress(ONE, TokenUsage(1, 2, 3, 0)))
DAMAGED = b"\1\0\0\0" + b"\1" * 100
SECOND = frame(final(ONE, TokenUsage(1, 2, 9, 4), "length"))


def test_a_request_is_folded_across_segments(tmp_path: Path) -> None:
    replay = read(write(tmp_path / "j", FIRST, SECOND))
    assert replay.damages == []
    assert replay.traces[ONE].usage == TokenUsage(1, 2, 9, 4)
    assert replay.traces[ONE].finish_reason == "length"


def test_a_request_is_told_when_its_end_is_read_and_not_before(tmp_path: Path) -> None:
    folder = write(tmp_path / "j", FIRST + frame(opened(TWO)) + SECOND, DAMAGED)
    damages: list[Damage] = []
    told = ends(folder, damages=damages)
    assert next(told).opened.request_id == ONE
    assert damages == []
    assert [(it.opened.request_id, it.finish_reason) for it in told] == [(TWO, None)]
    assert len(damages) == 1


def test_an_empty_folder_tells_nothing(tmp_path: Path) -> None:
    assert read(tmp_path).traces == {}


def test_records_of_a_request_opened_in_a_deleted_segment_are_passed_over(tmp_path: Path) -> None:
    replay = read(write(tmp_path / "j", SECOND))
    assert (replay.traces, replay.damages) == ({}, [])


def test_a_torn_tail_loses_only_itself(tmp_path: Path) -> None:
    for cut in range(1, len(SECOND)):
        replay = read(write(tmp_path / "j", FIRST + SECOND[:cut]))
        assert replay.traces[ONE].usage == TokenUsage(1, 2, 3, 0)
        assert replay.damages == []


def test_pages_that_never_reached_the_disk_are_a_torn_tail(tmp_path: Path) -> None:
    replay = read(write(tmp_path / "j", FIRST + bytes(4096)))
    assert replay.traces[ONE].usage.output_tokens == 3
    assert replay.damages == []


def test_a_bad_frame_with_more_behind_it_is_damage(tmp_path: Path) -> None:
    broken = bytearray(FIRST + SECOND)
    broken[len(FIRST) - 1] ^= 1
    replay = read(write(tmp_path / "j", bytes(broken), frame(opened(TWO))))
    (damage,) = replay.damages
    assert damage.offset_bytes == len(frame(opened(ONE)))
    assert replay.traces.keys() == {ONE, TWO}


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_make_the_reader_raise_or_invent(
    tmp_path_factory: object, data: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("j")  # type: ignore[attr-defined]
    replay = read(write(folder, FIRST[:cut] + data))
    assert replay.traces.keys() <= {ONE}
    if cut >= len(frame(opened(ONE))):
        assert ONE in replay.traces
