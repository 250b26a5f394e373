"""The Celery app: its clock ticks, its worker claims rows from PostgreSQL. Run by the supervisor.

    celery --app controlplane.jobs.app worker --pool solo
    celery --app controlplane.jobs.app beat

Messages carry nothing, so none can be lost: a tick that is missed, late or doubled changes nothing.
Each expires before the next, and the clock stops ticking while its ticks are not read, so nothing
piles up while no worker runs.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry
from celery.signals import setup_logging, worker_ready
from kombu import Producer
from prometheus_client import start_http_server
from redis.exceptions import RedisError
from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from controlplane import log
from controlplane.audit import anchors
from controlplane.billing import gpu_stops, gpu_time, settlement
from controlplane.cluster import Cluster, ClusterError
from controlplane.db import open_engine, session_factory
from controlplane.deployments import projection
from controlplane.errors import StartupError
from controlplane.metrics import USAGE_WAITING
from controlplane.settings import Settings
from controlplane.store import Store, open_store
from controlplane.webhooks import delivery
from controlplane.webhooks.courier import Courier

QUEUE = "flashplane-jobs"
MOST_UNREAD = 8
SETTLE_SECONDS = 1.0
RELEASE_SECONDS = 2.0
METER_SECONDS = 5.0
PROJECT_SECONDS = 2.0
ANCHOR_SECONDS = 3600.0
DELIVER_SECONDS = 1.0
TICK_LOGGERS = ("celery.app.trace", "celery.beat", "celery.worker.strategy")

_settings = Settings()
_log = logging.getLogger(__name__)


def broker_url(redis_url: str) -> str:
    """Return Celery's spelling of a Redis URL; it calls a Unix socket `redis+socket://`."""
    return redis_url.replace("unix://", "redis+socket://", 1)


app = Celery("flashplane", broker=broker_url(_settings.redis_url))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=1,
    beat_scheduler="controlplane.jobs.app:PatientScheduler",
    beat_schedule={
        "settle": {
            "task": "controlplane.jobs.app.settle",
            "schedule": SETTLE_SECONDS,
            "options": {"expires": SETTLE_SECONDS},
        },
        "release_dead": {
            "task": "controlplane.jobs.app.release_dead",
            "schedule": RELEASE_SECONDS,
            "options": {"expires": RELEASE_SECONDS},
        },
        "meter_gpu_time": {
            "task": "controlplane.jobs.app.meter_gpu_time",
            "schedule": METER_SECONDS,
            "options": {"expires": METER_SECONDS},
        },
        "deliver_webhooks": {
            "task": "controlplane.jobs.app.deliver_webhooks",
            "schedule": DELIVER_SECONDS,
            "options": {"expires": DELIVER_SECONDS},
        },
    },
)
if _settings.audit_anchor_file is not None:
    app.conf.beat_schedule["anchor_audit"] = {
        "task": "controlplane.jobs.app.anchor_audit",
        "schedule": ANCHOR_SECONDS,
        "options": {"expires": ANCHOR_SECONDS},
    }
if _settings.project_deployments:
    app.conf.beat_schedule["project"] = {
        "task": "controlplane.jobs.app.project",
        "schedule": PROJECT_SECONDS,
        "options": {"expires": PROJECT_SECONDS},
    }


class PatientScheduler(PersistentScheduler):
    """A clock that holds its ticks while enough of them are unread."""

    def apply_entry(self, entry: ScheduleEntry, producer: Producer | None = None) -> None:
        try:
            unread = _store().llen(QUEUE)
        except RedisError:
            _log.warning("broker_unavailable")
            return
        if unread < MOST_UNREAD:
            super().apply_entry(entry, producer)


@cache
def _store() -> Store:
    return open_store(_settings.redis_url)


@setup_logging.connect
def _configure_logging(**_: object) -> None:
    # One file per process: the clock and the worker both run this module.
    process = "beat" if "beat" in sys.argv else "jobs"
    log.configure(process, log_dir=_settings.log_dir, level=_settings.log_level)
    # Celery tells every tick, three lines a second, whether or not there was anything to do.
    for name in TICK_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


@worker_ready.connect
def _tell_metrics(**_: object) -> None:
    if _settings.jobs_metrics_port:
        start_http_server(_settings.jobs_metrics_port)


@app.task
def settle() -> None:
    """Settle what is staged, until nothing is."""
    while _tick(settlement.settle):
        pass
    USAGE_WAITING.set(_tick(settlement.waiting))


@app.task
def release_dead() -> None:
    """Release what closed epochs still hold, until nothing is left."""
    while _tick(settlement.release_dead):
        pass


@app.task
def meter_gpu_time() -> None:
    """Write down which GPU time was proven, charge what is due, stop what cannot be paid."""
    try:
        proofs = gpu_time.proofs(_store())
        if _tick(lambda session: gpu_time.extend(session, proofs, datetime.now(UTC))):
            gpu_time.acknowledge(_store(), proofs)
    except RedisError:
        _log.warning("store_unavailable")
    while _tick(lambda session: gpu_time.charge(session, datetime.now(UTC))):
        pass
    _tick(lambda session: gpu_stops.stop_broke(session, datetime.now(UTC)))


@app.task
def deliver_webhooks() -> None:
    """Set off with the webhooks that are due; nobody waits here until they have arrived."""
    try:
        _courier().tick()
    except (exc.OperationalError, exc.InterfaceError):
        _log.warning("database_unavailable")


@cache
def _courier() -> Courier:
    sessions = session_factory(open_engine(_settings.database_url, pool_size=2))
    return Courier(
        sessions,
        delivery.Terms(peppers=_settings.peppers(), allow_loopback=_settings.webhooks_to_loopback),
    )


@app.task
def anchor_audit() -> None:
    """Vouch outside the database for how far the audit chains have come."""
    file = _settings.audit_anchor_file
    assert file is not None
    try:
        key = anchors.load_key(_settings.audit_key_file or file.with_suffix(".key"))
        _tick(lambda session: anchors.append(session, file, key))
    except (OSError, StartupError) as error:
        _log.error("audit_not_anchored", extra={"reason": str(error)})


@app.task
def project() -> None:
    """Make the cluster say what the deployments' rows say, and the rows what it answers."""
    namespace = _settings.operator_namespace
    try:
        _tick(lambda session: projection.project(session, _cluster()))
        _tick(lambda s: projection.observe(s, _cluster(), catalogue_namespace=namespace))
    except ClusterError as error:
        _log.warning("cluster_unavailable", extra={"reason": str(error)})


@cache
def _cluster() -> Cluster:
    from controlplane.kube import Kube  # 20 MB that only projecting needs

    return Kube(_settings.kubeconfig)


@cache
def _sessions() -> sessionmaker[Session]:
    return session_factory(open_engine(_settings.database_url, pool_size=1))


def _tick(step: Callable[[Session], int]) -> int:
    """Return what one transaction dealt with; 0 while the database is down, the next tick tries."""
    try:
        with _sessions().begin() as session:
            return step(session)
    except (exc.OperationalError, exc.InterfaceError):
        _log.warning("database_unavailable")
        return 0
