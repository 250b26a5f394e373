"""The checkpoint of a built-in model: written once, and kept. Called by `start`.

The demo model is installed from the stored form that comes along with the worker; another stored
form, as after an update, is installed anew.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.processes.files import read_json, write_json
from controlplane.supervisor.built_in import BuiltInModel
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.layout import Layout
from controlplane.supervisor.progress import Progress


@dataclass(frozen=True)
class _Written:
    """Of a model that is whole: what it was made from, and how long each file is."""

    source: str
    files: dict[str, int]


def ensure(layout: Layout, model: BuiltInModel, progress: Progress) -> Path:
    """Write the model unless it is there, whole and from the same source; return its directory.

    Raises:
        SupervisorError: it cannot be written; the sentence names the fix.
    """
    directory, record = layout.model(model), layout.model_record(model)
    source = _run("model", "stored") if model is BuiltInModel.DEMO else model.value
    if read_json(record, _Written) != _Written(source, _file_sizes(directory)):
        with progress.step(f"Checkpoint of the {model} model"):
            shutil.rmtree(directory, ignore_errors=True)
            _run("model", model, os.fspath(directory))
            write_json(record, asdict(_Written(source, _file_sizes(directory))))
    return directory


def _file_sizes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in directory.glob("*")}


def _run(*arguments: str) -> str:
    """Run `flashplane-worker`; return what it printed."""
    program = Path(sys.executable).with_name("flashplane-worker")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        reason = last.removeprefix("flashplane-worker: ")
        raise SupervisorError(
            f"The built-in model could not be written ({reason}). `flashplane-worker "
            f"{' '.join(arguments)}` tells the whole error; `flashplane up --model tiny` starts "
            "without trained weights."
        )
    return result.stdout.strip()
