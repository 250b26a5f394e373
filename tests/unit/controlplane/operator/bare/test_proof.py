"""Proofs that GPUs are clean, from what the tools print to what is believed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cluster import Object
from controlplane.operator.bare.proof import (
    IDLE_MEMORY_MIB,
    Report,
    decode,
    from_tables,
    judge,
    report_of,
)

CLEAN = Report(["GPU-a", "GPU-b"], 0, 4, "passed")


def test_what_nvidia_smi_prints_is_read() -> None:
    report = from_tables("GPU-a, 4\nGPU-b, 1500\n", "", "absent")
    assert report == Report(["GPU-a", "GPU-b"], 0, 1500, "absent")
    assert from_tables("GPU-a, 4\n", "4711\n4712\n", "absent").foreign_pids == 2


def test_clean_gpus_are_believed() -> None:
    proof = judge(CLEAN, gpus=2, now=0)
    assert proof.ok
    assert proof.message == ""


@pytest.mark.parametrize(
    ("report", "gpus", "why"),
    [
        (None, 2, "left no report"),
        (CLEAN, 4, "2 GPUs seen, 4 had"),
        (Report(["GPU-a"], 1, 0, "passed"), 1, "1 processes left"),
        (Report(["GPU-a"], 0, IDLE_MEMORY_MIB + 1, "passed"), 1, "memory still used"),
        (Report(["GPU-a"], 0, 0, "failed"), 1, "quick test failed"),
        (from_tables("", "", "absent"), 1, "lists no GPU"),
    ],
)
def test_gpus_that_are_not_clean_are_not(report: Report | None, gpus: int, why: str) -> None:
    proof = judge(report, gpus=gpus, now=0)
    assert not proof.ok
    assert why in proof.message


@given(st.text(max_size=300))
def test_a_message_that_is_no_report_is_none(message: str) -> None:
    assert decode(message) is None or json.loads(message)


def test_a_report_survives_its_message() -> None:
    assert decode(CLEAN.encode()) == CLEAN
    assert len(Report([], 0, 0, "absent", "x" * 9000).encode()) < 4096


def test_the_report_is_read_off_the_pod_once_the_check_has_ended() -> None:
    def pod(state: Object) -> Object:
        return {"status": {"initContainerStatuses": [{"name": "sanitize", "state": state}]}}

    assert report_of(pod({"running": {}}), "sanitize") is None
    assert report_of(pod({"terminated": {"message": CLEAN.encode()}}), "sanitize") == CLEAN
    assert report_of({}, "sanitize") is None


@pytest.mark.parametrize(
    ("memory", "exit_code"), [("12", 0), ("70000", 1)], ids=["clean", "still used"]
)
def test_the_command_leaves_a_report(tmp_path: Path, memory: str, exit_code: int) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\ncase "$1" in *uuid*) echo "GPU-a, {memory}";; esac\n')
    tool.chmod(0o755)
    report = tmp_path / "report"
    program = "import controlplane.cli.scrub as it; it.WAIT_SECONDS = 0; it.POLL_SECONDS = 0;"
    program += "from controlplane.cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, "scrub", "--report-file", os.fspath(report)],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    found = decode(report.read_text())
    assert found is not None
    assert (found.gpu_uuids, found.memory_used_mib) == (["GPU-a"], int(memory))
