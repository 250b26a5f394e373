"""The children of `flashplane up`: what is run, in which order, and how it ends.

Called by `up` for a start and by `orphans` for what an earlier supervisor left.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from controlplane.supervisor.local_cluster import is_ready
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.service import Service
from controlplane.supervisor.valkey import Valkey

MODEL = "deepseek-v4-flash"  # the built-in engine's
READY_SECONDS = 120.0  # what a child may take
# Whoever takes customers' requests first, then those who work for it, then where they keep things.
STOP_ORDER = ("gateway", "api", "beat", "jobs", "operator", "worker", "valkey", "postgres")
# When its turn comes the gateway is gone: nobody waits for what still runs.
WORKER_DRAIN_SECONDS = 2
OPERATOR_STOP_SECONDS = 20  # its pods end within it


@dataclass(frozen=True)
class Addresses:
    """Where the tree listens."""

    host: str
    port: int
    admin_port: int
    worker_port: int

    @property
    def gateway_url(self) -> str:
        """The customers' origin."""
        return f"http://{self._reachable_host}:{self.port}"

    @property
    def admin_url(self) -> str:
        """The platform admin's origin."""
        return f"http://{self._reachable_host}:{self.admin_port}"

    @property
    def worker_url(self) -> str:
        """The engine worker; on loopback whatever the host, it knows no keys."""
        return f"http://127.0.0.1:{self.worker_port}"

    @property
    def _reachable_host(self) -> str:
        if self.host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host


def postgres_service(server: Postgres) -> Service:
    """The embedded PostgreSQL; SIGINT is its fast shutdown."""
    return Service(
        name="postgres",
        argv=tuple(server.command()),
        is_ready=server.is_ready,
        stop_signal=signal.SIGINT,
        stop_timeout_seconds=30,
    )


def valkey_service(server: Valkey) -> Service:
    """The embedded Valkey."""
    return Service(name="valkey", argv=tuple(server.command()), is_ready=server.is_ready)


def worker_service(
    model_dir: Path,
    addresses: Addresses,
    *,
    model: str,
    max_model_len: int,
    draft_tokens: int,
    journal: Path,
    log_file: Path,
) -> Service:
    """The engine worker on the CPU; needs no other service. It keeps its usage in `journal`, whose
    folder is made if missing."""
    journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("flashplane-worker")
    return Service(
        name="worker",
        argv=(
            *(os.fspath(program), "serve", os.fspath(model_dir)),
            *("--host", "127.0.0.1", "--port", str(addresses.worker_port)),
            *("--device", "cpu", "--dtype", "float32"),
            *("--max-model-len", str(max_model_len), "--draft-tokens", str(draft_tokens)),
            *("--served-model-name", model),
            *("--drain-seconds", str(WORKER_DRAIN_SECONDS)),
            *("--journal", os.fspath(journal), "--log-file", os.fspath(log_file)),
        ),
        is_ready=_answers(f"{addresses.worker_url}/health"),
        stop_timeout_seconds=WORKER_DRAIN_SECONDS + 10,
    )


def operator_service(
    environment: Mapping[str, str], *, needs: tuple[str, ...], pods: Path, model: Path
) -> Service:
    """The operator with a cluster of its own: deployments as processes of this machine.

    Args:
        pods: the folder of its pods.
        model: the checkpoint that is the claim `tiny` to pods.
    """
    pods.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Service(
        "operator",
        (
            *(sys.executable, "-m", "controlplane.cli", "local-operator"),
            *(os.fspath(pods), os.fspath(model)),
        ),
        lambda: is_ready(pods),
        environment,
        needs,
        stop_timeout_seconds=OPERATOR_STOP_SECONDS,
    )


def control_plane_services(
    addresses: Addresses,
    environment: Mapping[str, str],
    *,
    needs: tuple[str, ...],
    beat_schedule: Path,
    grace_seconds: float,
) -> list[Service]:
    """Gateway, REST API, jobs and their clock.

    Args:
        environment: everything they read their settings from.
        needs: the embedded servers among their needs.
        beat_schedule: the file the clock keeps its last ticks in.
        grace_seconds: how long the gateway lets streams finish.
    """

    def program(*arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "controlplane.cli", *arguments)

    host = addresses.host
    # Jobs and clock tell nobody that they are ready; the first settled bill does.
    return [
        Service(
            "gateway",
            program("gateway", "--host", host, "--port", str(addresses.port)),
            _answers(f"{addresses.gateway_url}/ready"),
            environment,
            needs,
            stop_timeout_seconds=grace_seconds + 10,
        ),
        Service(
            "api",
            program("api", "--host", host, "--port", str(addresses.admin_port)),
            _answers(f"{addresses.admin_url}/health"),
            environment,
            needs,
        ),
        Service("jobs", jobs_command(), lambda: True, environment, needs),
        Service("beat", beat_command(beat_schedule), lambda: True, environment, needs),
    ]


def jobs_command() -> tuple[str, ...]:
    """Return what runs the jobs: one process, one task at a time."""
    return (*_celery(), "worker", "--pool", "solo", "--without-mingle", "--without-gossip")


def beat_command(schedule: Path) -> tuple[str, ...]:
    """Return what runs the jobs' clock; it keeps its last ticks in `schedule`, made if missing."""
    schedule.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (*_celery(), "beat", "--pidfile", "", "--schedule", os.fspath(schedule))


def _celery() -> tuple[str, ...]:
    # As root, Celery warns of pickled messages. Ours carry nothing and come from ourselves.
    quiet = ("-W", "ignore:You're running the worker with superuser privileges")
    return (sys.executable, *quiet, "-m", "celery", "--quiet", "--app", "controlplane.jobs.app")


def _answers(url: str) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return httpx.get(url, timeout=1, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    return answers
