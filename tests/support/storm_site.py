"""The product in pieces that a storm may break: servers, gateways, real workers and jobs.

Every piece is killed, frozen and started again alone. Nobody mends them but the storm; a keeper
publishes the workers that are healthy, as an operator would.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import redis
from support.polling import until
from support.ports import free_port
from support.shop import PEPPER
from support.traffic import MODEL

from controlplane.processes.process import spawn
from controlplane.registry.replicas import Replica, publish, withdraw
from controlplane.schema import upgrade
from controlplane.settings import program_environment
from controlplane.store import open_store
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.services import beat_command, jobs_command
from controlplane.supervisor.valkey import Valkey

# Storms kill processes, never the machine: what the kernel holds is safe.
POSTGRES_OPTIONS = {"fsync": "off", "max_connections": "200"}
READY_SECONDS = 90
WORKER = (sys.executable, "-c", "from worker.cli import app; app()")


class Piece:
    """One process, with all that it starts."""

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        log_file: Path,
        *,
        is_ready: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.is_ready = is_ready
        self._command = command
        self._log_file = log_file
        self._environment = environment
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; do not wait until it is ready."""
        self._prepare()
        self._process = spawn(
            self._command,
            record=lambda identity: None,
            log_file=self._log_file,
            environment=self._environment,
        )

    def kill(self) -> None:
        """kill -9, and wait until all of it is gone."""
        assert self._process is not None
        gone = self._signal(signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(gone, 10)

    @property
    def pid(self) -> int:
        """Of the process itself, once it was started."""
        assert self._process is not None
        return self._process.pid

    def freeze(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def died(self) -> bool:
        """Whether it ended though nobody killed it."""
        return self._process is not None and self._process.poll() is not None

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        assert self._process is not None
        processes: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return processes


class Site:
    """All pieces by name, in the order in which they are started."""

    def __init__(
        self,
        folder: Path,
        sockets: Path,
        *,
        gateways: int,
        workers: int,
        settings: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self._settings = settings
        self.postgres = Postgres(sockets / "pg", sockets, POSTGRES_OPTIONS)
        self.valkey = Valkey(sockets / "valkey-data", sockets)
        self.gateway_urls: dict[str, str] = {}
        self.worker_urls: dict[str, str] = {}
        self.pieces: dict[str, Piece] = {}
        self._serve("postgres", self.postgres)
        self._serve("valkey", self.valkey)
        for number in range(workers):
            self._add_worker(f"worker-{number}")
        for number in range(gateways):
            self._add_gateway(f"gateway-{number}")
        self._add("jobs", jobs_command(), environment=self._environment())
        self._add("beat", beat_command(folder / "beat" / "ticks"), environment=self._environment())

    @property
    def database_url(self) -> str:
        return self.postgres.url()

    def journal(self, gateway: str) -> Path:
        """Where a gateway keeps its journal."""
        return self.folder / gateway

    def witness(self, worker: str) -> Path:
        """Where a worker writes down what it made."""
        return self.folder / f"{worker}.db"

    def start(self) -> None:
        """Start everything on a fresh database, and wait until all of it is ready."""
        subprocess.run([*WORKER, "model", "tiny", str(self.folder / "model")], check=True)
        self.pieces["postgres"].start()
        until(self.postgres.is_ready, seconds=READY_SECONDS, what="PostgreSQL")
        self.postgres.ensure_database()
        upgrade(self.database_url)
        for name, piece in self.pieces.items():
            if name != "postgres":
                piece.start()

    def wait_ready(self) -> None:
        """Wait until every piece answers."""
        for piece in self.pieces.values():
            until(piece.is_ready, seconds=READY_SECONDS, what=f"{piece.name} to be ready")

    def flush(self) -> None:
        """Take all from Valkey that it holds; when it is down it holds nothing anyway."""
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(self.valkey.url, socket_timeout=2) as client,
        ):
            client.flushall()

    def _serve(self, name: str, server: Postgres | Valkey) -> None:
        self._add(name, tuple(server.command()), is_ready=server.is_ready, prepare=server.prepare)

    def _add_worker(self, name: str) -> None:
        port = free_port()
        url = self.worker_urls[name] = f"http://127.0.0.1:{port}"
        command = (
            *(*WORKER, "serve", str(self.folder / "model"), "--port", str(port)),
            *("--threads", "1", "--served-model-name", MODEL, "--drain-seconds", "1"),
            *("--journal", str(self.witness(name)), "--max-model-len", "2048"),
        )
        self._add(name, command, is_ready=_answers(f"{url}/health"))

    def _add_gateway(self, name: str) -> None:
        port = free_port()
        url = self.gateway_urls[name] = f"http://127.0.0.1:{port}"
        self._add(
            name,
            (sys.executable, "-m", "controlplane.cli", "gateway", "--port", str(port)),
            is_ready=_answers(f"{url}/ready"),
            environment=self._environment(
                FLASHPLANE_GATEWAY_NAME=name,
                FLASHPLANE_JOURNAL_DIR=str(self.journal(name)),
                FLASHPLANE_SHUTDOWN_GRACE_SECONDS="1",
                FLASHPLANE_RESUME_PATIENCE_SECONDS="20",
                FLASHPLANE_HOLD_SILENCE_SECONDS="0",
                **self._settings,
            ),
        )

    def _environment(self, **more: str) -> dict[str, str]:
        return program_environment() | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.valkey.url,
            "FLASHPLANE_KEY_PEPPER": PEPPER.decode(),
            **more,
        }

    def _add(self, name: str, command: tuple[str, ...], **terms: object) -> None:
        log_file = self.folder / f"{name}.log"
        self.pieces[name] = Piece(name, command, log_file, **terms)  # type: ignore[arg-type]


@contextmanager
def site(folder: Path, *, gateways: int, workers: int, **settings: str) -> Iterator[Site]:
    """A running site, with more settings of its gateways; nothing of it is left in the end."""
    with ExitStack() as stack:
        # Sockets' paths must be short, whatever pytest's own folder is.
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="fps-", dir="/tmp"))
        it = Site(folder, Path(sockets), gateways=gateways, workers=workers, settings=settings)
        try:
            it.start()
            with keeper(it):
                it.wait_ready()
                yield it
        finally:
            for piece in reversed(it.pieces.values()):
                with suppress(AssertionError):  # never started
                    piece.kill()


@contextmanager
def keeper(it: Site) -> Iterator[None]:
    """Publish healthy workers four times a second, and withdraw the others."""
    stopping = threading.Event()

    def keep() -> None:
        with open_store(it.valkey.url) as store, httpx.Client(timeout=1, trust_env=False) as http:
            while not stopping.wait(0.25):
                for name, url in it.worker_urls.items():
                    with suppress(redis.RedisError):
                        if (state := _health(http, url)) == "down":
                            withdraw(store, name)
                        elif state == "up":
                            told = {"model": MODEL, "path": "serverless", "max_model_len": 2048}
                            publish(store, Replica(name, url, published_at=time.time(), **told))

    thread = threading.Thread(target=keep, name="keeper")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _health(http: httpx.Client, url: str) -> str:
    try:
        return "up" if http.get(f"{url}/health").status_code == 200 else "down"
    except httpx.TimeoutException:
        return "busy"  # or frozen; silence for long lets its entry lapse
    except httpx.HTTPError:
        return "down"


def _answers(url: str) -> Callable[[], bool]:
    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2, trust_env=False).status_code == 200
        return False

    return answers
