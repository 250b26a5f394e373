"""`flashplane-worker serve` as a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.ports import free_port


@contextmanager
def worker(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A started `flashplane-worker serve` and its base URL; killed at the end if still there."""
    port = free_port()
    command = [
        *(sys.executable, "-c", "from worker.cli import app; app()", "serve", str(directory)),
        *("--port", str(port), "--threads", "1", *options),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()
