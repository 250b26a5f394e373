"""`flashplane scrub`: says whether the GPUs of this container are clean.

Run in bare endpoints' pods, before the customer and after. It asks `nvidia-smi`, which the
container runtime puts beside the GPUs, and `dcgmi` where the image has it. What it found is the
container's termination message; the operator judges it.
"""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from controlplane.operator.bare.proof import QuickTest, Report, from_tables, judge

WAIT_SECONDS = 60.0
POLL_SECONDS = 2.0
QUICK_TEST_SECONDS = 300.0


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(hidden=True)(scrub)


def scrub(
    report_file: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(
        "/dev/termination-log"
    ),
    gpus: Annotated[bool, typer.Option(help="Whether there are GPUs to look at.")] = True,
) -> None:
    """Prove that the GPUs of this container are clean; fails when they are not."""
    report = _look() if gpus else Report([], 0, 0, "absent")
    report_file.write_text(report.encode())
    proof = judge(report, gpus=len(report.gpu_uuids), now=time.time())
    typer.echo(proof.message or "clean")
    raise typer.Exit(0 if proof.ok else 1)


def _look() -> Report:
    """Look until it is clean or has had its time: a driver gives memory back after a moment."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        report = _tables("absent")
        proof = judge(report, gpus=len(report.gpu_uuids), now=time.time())
        if proof.ok:
            return _tables(_quick_test())
        if time.monotonic() > deadline:
            return report
        time.sleep(POLL_SECONDS)


def _tables(quick_test: QuickTest) -> Report:
    if shutil.which("nvidia-smi") is None:
        return Report([], 0, 0, quick_test, "nvidia-smi is not in this container")
    gpus = _ask("--query-gpu=uuid,memory.used")
    processes = _ask("--query-compute-apps=pid")
    return from_tables(gpus, processes, quick_test)


def _ask(query: str) -> str:
    asked = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else ""


def _quick_test() -> QuickTest:
    if shutil.which("dcgmi") is None:
        return "absent"
    try:
        done = subprocess.run(
            ["dcgmi", "diag", "-r", "1"],
            capture_output=True,
            timeout=QUICK_TEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "failed"
    return "passed" if done.returncode == 0 else "failed"
