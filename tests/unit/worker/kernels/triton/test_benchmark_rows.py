"""The rows of `benchmarks.kernels` at a small size: each builds, runs and equals the reference."""

import pytest
import torch

from benchmarks.kernels import table
from benchmarks.kernels.__main__ import ROWS, chosen, main
from benchmarks.kernels.case import Row
from benchmarks.kernels.timing import Limits
from worker.kernels import triton as backend


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_a_row_computes_what_the_reference_does(row: Row, device: str) -> None:
    case = row.case(backend, device, tiny=True)
    assert case.error() <= case.tolerance
    assert case.moved_bytes > 0


def test_rows_are_chosen_by_number() -> None:
    assert [row.number for row in chosen("2,8a")] == ["2a", "2b", "8a"]
    with pytest.raises(SystemExit, match="known: 1, 2a, 2b, 3, 4, 5, 7, 8a, 8b"):
        chosen("6")


def test_the_floor_is_the_narrower_of_bandwidth_and_arithmetic() -> None:
    device = Limits(bandwidth=3.35e12, flops=990e12)
    assert device.floor(335, 0) == pytest.approx(1e-4)
    assert device.floor(335, 990_000_000) == pytest.approx(1.0)


def test_a_time_is_told_in_its_rows_unit(device: str) -> None:
    known = Limits(bandwidth=1e12, flops=1e15)
    by_number = {row.number: row for row in ROWS}
    case = by_number["8a"].case(backend, device, tiny=True)
    least = case.moved_bytes / known.bandwidth * 1e6
    assert table.in_unit(by_number["8a"], case, known, 2 * least) == pytest.approx(50)
    assert table.in_unit(by_number["7"], case, known, 1.0) == pytest.approx(case.flops / 1e6)
    assert table.in_unit(by_number["1"], case, known, 1.0) == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there: rows are measured")
def test_without_a_gpu_the_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(rows="1,4")
    told = capsys.readouterr().out
    assert told.startswith("no CUDA device")
    assert [line.split("|")[3].strip() for line in told.splitlines()[-2:]] == ["unmeasured"] * 2
