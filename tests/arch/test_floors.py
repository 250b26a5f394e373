"""The shape of the code base: floors, what may be loaded where, sizes."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("controlplane", "worker", "migrations", "deploy")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

HARD_FILE_LINES = 500
SOFT_FILE_LINES = 300
MEDIAN_FILE_LINES = 100
HARD_FUNCTION_LINES = 60
P90_FUNCTION_LINES = 30

CONTROL_PLANE_ENTRY_POINTS = (
    "controlplane.cli.commands",
    "controlplane.gateway.app",
    "controlplane.api.app",
    "controlplane.jobs.app",
    "controlplane.operator.main",
    "controlplane.supervisor.up",
)
MODEL_STACK = ("torch", "triton", "numpy", "tokenizers", "safetensors", "transformers")


def loaded_modules(entry_point: str) -> set[str]:
    program = f"import sys, {entry_point}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of the body: a long signature of a command is a table, not logic."""
    assert function.end_lineno is not None
    return function.end_lineno - function.body[0].lineno + 1


def reads_environment(file: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(ast.parse(file.read_text()))
    )


def test_import_contracts_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [program, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("entry_point", CONTROL_PLANE_ENTRY_POINTS)
def test_the_control_plane_never_loads_the_model_stack(entry_point: str) -> None:
    assert not loaded_modules(entry_point) & set(MODEL_STACK)


@pytest.mark.parametrize(
    "entry_point", [name for name in CONTROL_PLANE_ENTRY_POINTS if ".jobs." not in name]
)
def test_only_jobs_load_celery(entry_point: str) -> None:
    assert "celery" not in loaded_modules(entry_point)


def test_the_scheduler_loads_without_torch() -> None:
    assert "torch" not in loaded_modules("worker.scheduler, worker.cache.manager")


def test_the_environment_is_read_in_settings_alone() -> None:
    readers = [str(file.relative_to(ROOT)) for file in SOURCES if reads_environment(file)]
    assert readers == ["controlplane/settings.py"]


@pytest.mark.parametrize("files", [SOURCES, TESTS], ids=["sources", "tests"])
def test_files_are_short(files: list[Path]) -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > HARD_FILE_LINES} == {}
    assert statistics.median(lines.values()) < MEDIAN_FILE_LINES
    long = {name: count for name, count in lines.items() if count > SOFT_FILE_LINES}
    assert len(long) <= len(lines) // 20, long


def test_functions_are_short() -> None:
    lengths = {
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}": length(function)
        for file in SOURCES
        for function in functions(file)
    }
    long = {where: count for where, count in lengths.items() if count > HARD_FUNCTION_LINES}
    assert long == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] < P90_FUNCTION_LINES


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in SOURCES
        if file.read_text().strip() and ast.get_docstring(ast.parse(file.read_text())) is None
    ]
    assert silent == []
