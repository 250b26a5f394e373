"""The process `operator` of `flashplane up`: a cluster on this machine, and the operator on it.

It keeps objects in memory, runs pods as local processes, and makes the deployments' rows true every
second. Nothing of it needs keeping: killed and started again, it ends the processes it left and
makes everything anew from the rows. Run by `flashplane local-operator`, a child of `up`.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from controlplane import log
from controlplane.cluster import Cluster, ClusterError
from controlplane.db import open_engine, session_factory
from controlplane.deployments.projection import observe, project
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.objects import LocalCluster
from controlplane.local.volumes import Disks
from controlplane.operator.main import Operator, assemble
from controlplane.settings import Settings, program_environment
from controlplane.supervisor.local_cluster import (
    NODE,
    TINIES,
    TINY_CLAIM,
    TINY_RESOURCE,
    ready_file,
    seed,
)

PROJECT_SECONDS = 1.0
STOP_SECONDS = 5.0
# Processes here are this user's, unconfined: a tenant's own commands are not run.
PROGRAMS = frozenset({"flashplane-worker"})
IMAGE = "this-machine"  # pods need one; it is not looked at
_log = logging.getLogger(__name__)


def run(settings: Settings, *, folder: Path, model: Path) -> None:
    """Keep the cluster until SIGTERM or SIGINT, then end its pods.

    Args:
        folder: of the pods' disks and processes; `is_ready` asks it.
        model: the checkpoint that pods find in the claim `tiny`.
    """
    log.configure("operator", log_dir=settings.log_dir, level=settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cluster = LocalCluster()
    seed(cluster, settings.operator_namespace)
    kubelet = Kubelet(
        cluster,
        [LocalNode(NODE, {TINY_RESOURCE: TINIES})],
        disks=Disks(folder, {TINY_CLAIM: model}),
        environment=pod_environment(),
        programs=PROGRAMS,
    )
    kubelet.start()
    images = {"engine_images": {"flash": IMAGE}, "tools_image": IMAGE}
    operator = assemble(cluster, settings.model_copy(update=images))
    engine = open_engine(settings.database_url, pool_size=1)
    try:
        _work(stop, cluster, operator, session_factory(engine), settings, folder)
    finally:
        operator.stop(STOP_SECONDS)
        kubelet.stop(STOP_SECONDS)
        cluster.close()
        engine.dispose()


def _work(
    stop: threading.Event,
    cluster: Cluster,
    operator: Operator,
    sessions: sessionmaker[Session],
    settings: Settings,
    folder: Path,
) -> None:
    if not operator.start(stop):
        return
    ready_file(folder).write_text(str(os.getpid()))
    while not stop.wait(PROJECT_SECONDS):
        project_once(sessions, cluster, settings.operator_namespace)


def project_once(sessions: sessionmaker[Session], cluster: Cluster, namespace: str) -> None:
    """Carry rows to the cluster and its answers back; what fails is tried again next time."""
    try:
        with sessions.begin() as session:
            project(session, cluster)
        with sessions.begin() as session:
            observe(session, cluster, catalogue_namespace=namespace)
    except (exc.OperationalError, exc.InterfaceError):
        _log.warning("database_unavailable")
    except ClusterError as error:
        _log.warning("projection_failed", extra={"reason": str(error)[:500]})


def pod_environment() -> Mapping[str, str]:
    """Return what pods find on this machine: its programs, ours first, and no secret of ours."""
    environment = program_environment()
    ours = os.fspath(Path(sys.executable).parent)
    return {**environment, "PATH": f"{ours}:{environment.get('PATH', os.defpath)}"}
