"""Kernels compile ahead of time for sm_90, in a process of their own: the interpreter is off."""

import os
import subprocess
import sys

import pytest

from worker.kernels.triton.resources import main


def resources(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "worker.kernels.triton.resources", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a Markdown table by its head."""
    head, _, *body = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    ]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def test_an_operations_kernels_are_told_with_what_they_take() -> None:
    done = resources("--op", "rotate_")
    assert (done.returncode, done.stderr) == (0, "")
    told = rows(done.stdout)
    assert {row["kernel"] for row in told} >= {"rotate, query heads", "rotate, entry"}
    for row in told:
        assert 0 < int(row["registers"]) <= 255
        assert (row["spilled"], row["atomics"], row["wgmma"]) == ("0", "0", "0")


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(SystemExit, match="no operation 'rotate'; known: compress_entries"):
        main(op="rotate")


@pytest.mark.storm
def test_no_kernel_spills_or_fails_to_compile() -> None:
    done = resources()
    assert done.returncode == 0, done.stdout + done.stderr
