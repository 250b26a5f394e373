"""`flashplane doctor`: is this machine fit for `flashplane up`, and if not, what to do.

Where the product runs it looks after its money too, see `data_doctor`. With `--cluster` it asks
`cluster_doctor` about a Kubernetes cluster instead.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.findings import Finding, tell
from controlplane.cli.product import ADMIN_PORT, HOST, PORT, WORKER_PORT
from controlplane.settings import Settings
from controlplane.supervisor.announcement import read_announcement
from controlplane.supervisor.binaries import postgres_program, valkey_server
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.layout import Layout
from controlplane.supervisor.ports import check_port
from controlplane.supervisor.sockets import fits
from controlplane.supervisor.unprivileged import needs_nobody

NEEDED_BYTES = 2 * 2**30
LOCKED_PLATFORM = ("Linux", "x86_64", "CPython", (3, 11))


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("doctor")(report)


def report(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Check the Kubernetes cluster of KUBECONFIG instead.")
    ] = False,
    namespace: Annotated[
        str, typer.Option(help="Where the chart is installed, or will be.")
    ] = "flashplane",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine, or a cluster before and after `helm install`; and the money in either.

    Each line says ok, or what to do. The exit code is 1 when one fails.
    """
    settings = Settings()
    if cluster:
        from controlplane.cli import cluster_doctor

        findings = list(cluster_doctor.examine(settings, namespace))
    else:
        findings = list(examine(settings))
    tell(findings, as_json=as_json)


def examine(settings: Settings) -> Iterator[Finding]:
    """Return the findings about this machine, one after the other."""
    data_dir = settings.data_dir.absolute()
    yield _platform()
    if not settings.database_url:
        yield _runs("PostgreSQL", lambda: [os.fspath(postgres_program("postgres"))])
        yield _namespaces()
    if not settings.redis_url:
        yield _runs("Valkey", lambda: [os.fspath(valkey_server())])
    yield _sockets(data_dir)
    yield _writable(data_dir)
    yield _disk_space(data_dir)
    running = read_announcement(Layout(data_dir).up_file)
    database_url = settings.database_url or (running.database_url if running else "")
    if database_url:
        from controlplane.cli import data_doctor

        redis_url = settings.redis_url or (running.redis_url if running else "")
        yield from data_doctor.examine(database_url, redis_url)
    if running:
        yield Finding("Ports", True, f"the product that runs here has them: {running.base_url}")
        return
    for port, flag, purpose in (
        (PORT, "--port", "gateway"),
        (ADMIN_PORT, "--admin-port", "admin API"),
        (WORKER_PORT, "--worker-port", "engine worker"),
    ):
        yield _port(port, flag, purpose)


def _platform() -> Finding:
    here = (
        platform.system(),
        platform.machine(),
        platform.python_implementation(),
        sys.version_info[:2],
    )
    name = f"{here[0]} {here[1]}, {here[2]} {here[3][0]}.{here[3][1]}"
    if here != LOCKED_PLATFORM:
        name += "; untested, packages are not locked (tested: Linux x86_64, CPython 3.11)"
    return Finding("Platform", True, name)


def _runs(name: str, command: Callable[[], list[str]]) -> Finding:
    try:
        argv = [*command(), "--version"]
        result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    except (SupervisorError, OSError) as error:
        return Finding(name, False, "not found", str(error))
    if result.returncode != 0:
        last = (result.stderr.strip() or "no message").splitlines()[-1]
        fix = "install the packages again with `make up`, or set DATABASE_URL and REDIS_URL"
        return Finding(name, False, last, fix)
    return Finding(name, True, result.stdout.strip())


def _namespaces() -> Finding:
    if needs_nobody():
        detail = "forbidden; PostgreSQL will run as nobody in a folder below /var/tmp"
        return Finding("User namespaces", True, detail)
    return Finding("User namespaces", True, "work, or are not needed")


def _sockets(data_dir: Path) -> Finding:
    if fits(data_dir / "run"):
        return Finding("Sockets", True, f"in {data_dir / 'run'}")
    return Finding("Sockets", True, f"in a folder under /tmp, the path of {data_dir} is too long")


def _writable(data_dir: Path) -> Finding:
    folder = _nearest_existing(data_dir)
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = "make it writable, or choose another with FLASHPLANE_DATA_DIR"
        return Finding("Data folder", False, f"{folder} cannot be written", fix)
    return Finding("Data folder", True, str(data_dir))


def _disk_space(data_dir: Path) -> Finding:
    free_bytes = shutil.disk_usage(_nearest_existing(data_dir)).free
    detail = f"{free_bytes / 2**30:.1f} GiB free"
    if free_bytes < NEEDED_BYTES:
        fix = f"free at least {NEEDED_BYTES / 2**30:.0f} GiB, or set FLASHPLANE_DATA_DIR elsewhere"
        return Finding("Disk", False, detail, fix)
    return Finding("Disk", True, detail)


def _port(port: int, flag: str, purpose: str) -> Finding:
    try:
        check_port(HOST, port, flag=flag, purpose=purpose)
    except SupervisorError as error:
        return Finding(f"Port {port}", False, "taken", str(error))
    return Finding(f"Port {port}", True, f"free for the {purpose}")


def _nearest_existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
