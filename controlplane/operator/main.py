"""The operator's process: its parts, who leads, health, and a clean end. `flashplane operator`.

`assemble` puts the parts together over any `Cluster`: `run` does it over a real API server with a
lease, `flashplane up` over objects in memory without one. Controllers begin once every cache holds
what there is, so that no plan is made from half a picture.
"""

import logging
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controlplane import log
from controlplane.cluster import Cluster
from controlplane.errors import StartupError
from controlplane.operator import schema_check
from controlplane.operator.assembly import Assembly
from controlplane.operator.runtime.health import HealthServer
from controlplane.operator.runtime.lease import Elector
from controlplane.settings import Settings
from controlplane.store import open_store
from controlplane.watching.reflector import Reflector

LEASE_NAME = "flashplane-operator"
STALE_WATCH_SECONDS = 600.0  # no sign of life for longer: the watches hang, a restart is due
STOP_SECONDS = 20.0
_log = logging.getLogger(__name__)


class Part(Protocol):
    """Something with threads of its own: a controller, a monitor, a publisher."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """Ask it to end; does not wait."""

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""


@dataclass
class Operator:
    """All parts of an operator over one cluster."""

    reflectors: Sequence[Reflector]
    parts: Sequence[Part]
    _started: bool = field(default=False, init=False)

    def start(self, stop: threading.Event | None = None) -> bool:
        """Read what there is, then begin to act; return False if `stop` was set before that."""
        for reflector in self.reflectors:
            reflector.start()
        for reflector in self.reflectors:
            while not reflector.cache.synced.wait(0.2):
                if stop is not None and stop.is_set():
                    return False
        for part in self.parts:
            part.start()
        self._started = True
        return True

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> bool:
        """End: rounds that run are finished; return whether all was done in time."""
        deadline = time.monotonic() + timeout_seconds
        for reflector in self.reflectors:
            reflector.stop()
        if not self._started:
            return True
        for part in self.parts:
            part.stop()
        ended = [part.join(max(0.0, deadline - time.monotonic())) for part in self.parts]
        return all(ended)

    def wrong(self) -> str:
        """Return what is wrong with it; empty: nothing."""
        hanging = [
            reflector.cache.resource.plural
            for reflector in self.reflectors
            if reflector.age_seconds() > STALE_WATCH_SECONDS
        ]
        return f"watches hang: {', '.join(hanging)}" if hanging else ""


def assemble(
    cluster: Cluster, settings: Settings, may_write: Callable[[], bool] = lambda: True
) -> Operator:
    """Return the operator's parts, not started.

    Args:
        may_write: asked before every write to the cluster.

    Raises:
        StartupError: no store is named. One that is down is no hindrance.
    """
    if not settings.redis_url:
        raise StartupError("Set REDIS_URL to the store that the gateways look into.")
    made = Assembly(cluster, settings, open_store(settings.redis_url), may_write)
    return Operator(reflectors=made.reflectors, parts=made.parts)


def run(settings: Settings) -> int:
    """Be one of a cluster's operators until SIGTERM or SIGINT.

    Returns:
        The exit code: 1 when the lead was lost, for a fresh process to try again.

    Raises:
        StartupError: there are no credentials, or the port is taken.
    """
    log.configure("operator", log_dir=settings.log_dir, level=settings.log_level)
    process = _Process(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop.set())
    return process.run()


class _Process:
    """What `run` runs: one operator with its lease, its health and its end."""

    def __init__(self, settings: Settings) -> None:
        from controlplane.kube import Kube  # 0.3 s and 30 MB, which one machine does not need

        self.stop = threading.Event()
        self._not_ready = "the kinds are not known to be current"
        self._cluster = Kube(settings.kubeconfig)
        self._elector = Elector(
            self._cluster,
            namespace=settings.operator_namespace,
            name=LEASE_NAME,
            identity=settings.operator_identity or f"{socket.gethostname()}_{secrets.token_hex(4)}",
            lease_seconds=settings.operator_lease_seconds,
        )
        self._operator = assemble(self._cluster, settings, may_write=self._elector.is_leading)
        try:
            self._health = HealthServer(
                settings.operator_host,
                settings.operator_port,
                healthy=self._operator.wrong,
                ready=lambda: self._not_ready,
            )
        except OSError as error:
            raise StartupError(
                f"Port {settings.operator_port}, meant for the operator's health, cannot be bound "
                f"({error.strerror}): set FLASHPLANE_OPERATOR_PORT."
            ) from None

    def run(self) -> int:
        """Run until `stop` is set or the lead is lost; return the exit code."""
        self._health.start()
        try:
            return self._lead()
        finally:
            self._operator.stop()
            self._elector.stop()
            self._cluster.close()
            self._health.stop()

    def _tell(self, problem: str) -> None:
        self._not_ready = problem

    def _lead(self) -> int:
        if not schema_check.wait_until_current(self._cluster, self.stop, self._tell):
            return 0
        self._not_ready = ""  # one that waits for the lead is ready to take over
        self._elector.start()
        while not self._elector.wait_for_lead(0.2):
            if self.stop.is_set():
                return 0
        if not self._operator.start(self.stop):
            return 0
        _log.info("operator_leads")
        while not self.stop.wait(0.2):
            if not self._elector.is_leading():
                return 1
        return 0
