"""One pod of this machine: a thread that runs its containers and tells its status.

Started by `kubelet`. Init containers run one after the other, then the rest together.
"""

import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from controlplane.cluster import PODS, Cluster, ClusterError, NotFound, Object, Resource
from controlplane.crd.base import timestamp
from controlplane.local import container as containers
from controlplane.local.container import TERMINATION_LOG, Surroundings
from controlplane.local.launching import Command, NotConfigured, command_of
from controlplane.local.running import Processes
from controlplane.local.volumes import Disks, mounts_of, volume_folders

MANAGER = "kubelet"
TICK_SECONDS = 0.1
DEFAULT_GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Machine:
    """What all pods of one machine share; see `Kubelet`."""

    cluster: Cluster
    disks: Disks
    processes: Processes
    environment: Mapping[str, str]
    is_missing: Callable[[str], bool]
    programs: Container[str] | None


class PodRun:
    """The life of one pod here, from its first container to its removal from the cluster.

    Args:
        body: the pod, with its node.
        address: an address of this machine that is this pod's alone.
        restarts: how often its containers were started before, by an earlier kubelet.
    """

    def __init__(self, body: Object, machine: Machine, address: str, *, restarts: int = 0) -> None:
        self.uid: str = body["metadata"]["uid"]
        self.node: str = body["spec"]["nodeName"]
        self._body = {**body, "status": {"podIP": address, "hostIP": "127.0.0.1"}}
        self._machine = machine
        self._address = address
        self._restarts = restarts
        self._told: Object = {}
        self._transitions: dict[str, tuple[bool, str]] = {}
        self._wake = threading.Event()
        self._kill_at: float | None = None
        self._tells = True
        self._reason = ""
        self._started_at = time.time()
        self._inits = [self._container(it, init=True) for it in self._specs("initContainers")]
        self._containers = [self._container(it, init=False) for it in self._specs("containers")]
        name = body["metadata"]["name"]
        self._thread = threading.Thread(target=self._run, name=f"pod {name}", daemon=True)

    def start(self) -> None:
        """Begin; call it once."""
        self._thread.start()

    def end(self, grace_seconds: float, *, tell: bool = True) -> None:
        """Have its containers end within this time; call it again to shorten it.

        Args:
            tell: whether the cluster is told, and the pod removed from it at the end.
        """
        kill_at = time.time() + grace_seconds
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
        self._tells = self._tells and tell
        self._wake.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait until it has ended; return whether it has."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _specs(self, kind: str) -> list[Object]:
        specs: list[Object] = self._body["spec"].get(kind) or []
        return specs

    def _run(self) -> None:
        while not self._is_over():
            now = time.time()
            self._end_if_late(now)
            if self._kill_at is not None:
                for container in [*self._inits, *self._containers]:
                    container.end(self._kill_at)
            for container in self._current():
                container.tick(now)
            self._tell()
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
        self._tell()
        while self._kill_at is None:  # over by itself; it stays until it is deleted
            self._wake.wait()
            self._wake.clear()
        while self._tells and not self._is_removed():
            self._wake.wait(TICK_SECONDS)

    def _current(self) -> list[containers.Container]:
        """Those whose turn it is: the first init container that is not done, or all the rest."""
        undone = next((it for it in self._inits if it.exit_code != 0), None)
        if undone is not None and self._kill_at is None:
            return [undone]
        return [*self._inits, *self._containers]

    def _is_over(self) -> bool:
        if self._kill_at is not None:
            return not any(it.is_running for it in [*self._inits, *self._containers])
        failed = any(it.is_over and it.exit_code for it in self._inits)
        return failed or all(it.is_over for it in self._containers)

    def _end_if_late(self, now: float) -> None:
        limit_seconds = self._body["spec"].get("activeDeadlineSeconds")
        if limit_seconds is None or now < self._started_at + limit_seconds or self._reason:
            return
        self._reason = "DeadlineExceeded"
        for container in [*self._inits, *self._containers]:
            container.end(now)

    def _container(self, spec: Object, *, init: bool) -> containers.Container:
        folder = self._machine.disks.of_pod(self.uid)
        name = spec["name"]
        policy = self._body["spec"].get("restartPolicy", "Always")
        given = Surroundings(
            key=f"{self.uid}/{name}",
            command=partial(self._command, spec),
            is_missing=self._machine.is_missing,
            processes=self._machine.processes,
            log_file=folder / f"{name}.log",
            message_file=folder / f"{name}.termination",
            address=self._address,
            restart_policy="OnFailure" if init and policy == "Always" else policy,
            grace_seconds=self.grace_seconds,
        )
        return containers.Container(spec, given, restarts=0 if init else self._restarts)

    @property
    def grace_seconds(self) -> float:
        """How long it may take to end unless somebody says otherwise."""
        seconds = self._body["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        return float(seconds)

    def _command(self, spec: Object) -> Command:
        folder = self._machine.disks.of_pod(self.uid)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            volumes = volume_folders(self._body, self._machine.disks, self._read)
            folders: dict[str, Path] = mounts_of(spec, volumes)
            path = spec.get("terminationMessagePath", TERMINATION_LOG)
            folders[path] = folder / f"{spec['name']}.termination"
            return command_of(
                spec,
                self._body,
                folders=folders,
                environment=self._machine.environment,
                read=self._read,
                programs=self._machine.programs,
            )
        except (ClusterError, OSError) as error:
            raise NotConfigured(str(error)) from error

    def _read(self, resource: Resource, name: str) -> Object:
        namespace = self._body["metadata"]["namespace"]
        return self._machine.cluster.get(resource, name, namespace=namespace)

    def _tell(self) -> None:
        """Write the status if it is another; a cluster that is away is told at the next tick."""
        status = self._status()
        if status == self._told or not self._tells:
            return
        metadata = {word: self._body["metadata"][word] for word in ("namespace", "name")}
        try:
            self._machine.cluster.apply_status(
                PODS, {"metadata": metadata, "status": status}, manager=MANAGER
            )
        except NotFound:
            self.end(0, tell=False)
        except ClusterError:
            return
        self._told = status

    def _is_removed(self) -> bool:
        metadata = self._body["metadata"]
        try:
            self._machine.cluster.delete(
                PODS,
                metadata["name"],
                namespace=metadata["namespace"],
                uid=self.uid,
                grace_seconds=0,
            )
        except NotFound:
            return True
        except ClusterError:
            return False
        return True

    def _status(self) -> Object:
        initialized = all(it.exit_code == 0 for it in self._inits)
        ready = initialized and all(it.is_ready for it in self._containers)
        said = {
            "Initialized": initialized,
            "Ready": ready,
            "ContainersReady": ready,
            "PodScheduled": True,
        }
        status: Object = {
            "phase": self._phase(initialized),
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "hostIP": "127.0.0.1",
            "startTime": timestamp(self._started_at),
            "conditions": [self._condition(*it) for it in said.items()],
            "containerStatuses": [it.status() for it in self._containers],
        }
        if self._inits:
            status["initContainerStatuses"] = [it.status() for it in self._inits]
        if self._reason:
            status["reason"] = self._reason
        return status

    def _phase(self, initialized: bool) -> str:
        if self._reason or any(it.is_over and it.exit_code for it in self._inits):
            return "Failed"
        if all(it.is_over for it in self._containers):
            bad = any(it.exit_code for it in self._containers)
            return "Failed" if bad else "Succeeded"
        begun = all(it.is_running or it.last_state or it.is_over for it in self._containers)
        return "Running" if initialized and begun else "Pending"

    def _condition(self, kind: str, holds: bool) -> Object:
        before = self._transitions.get(kind)
        since = before[1] if before and before[0] == holds else timestamp(time.time())
        self._transitions[kind] = (holds, since)
        return {
            "type": kind,
            "status": "True" if holds else "False",
            "lastTransitionTime": since,
        }
