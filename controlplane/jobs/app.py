"""The Celery app: its clock ticks, its worker claims rows from PostgreSQL. Run by the supervisor.

    celery --app controlplane.jobs.app worker --pool solo
    celery --app controlplane.jobs.app beat

Messages carry nothing, so none can be lost: a tick that is missed, late or doubled changes nothing.
Each expires before the next, and the clock stops ticking while its ticks are not read, so nothing
piles up while no worker runs.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
from controlplane.billing import settlement
from controlplane.billing.gpu import metering
from controlplane.billing.gpu.metering import Policy
from controlplane.billing.invoices import coverage, lifecycle
from controlplane.billing.invoices.profiles import Seller
from controlplane.billing.reconcile import comparison, recovery, witnesses
from controlplane.cluster import Cluster, ClusterError
from controlplane.db import open_engine, session_factory
from controlplane.deployments import projection
from controlplane.errors import StartupError
from controlplane.metrics import AUDIT_ANCHORED_AT, USAGE_WAITING
from controlplane.registry import replicas
from controlplane.settings import Settings
from controlplane.store import Store, open_store
from controlplane.tenants import answers
from controlplane.usage import partitions, rollups
from controlplane.webhooks import delivery
from controlplane.webhooks.courier import Courier

QUEUE = "flashplane-jobs"
MOST_UNREAD = 8
# How often each task is ticked, in seconds; a tick that has not been read by then is dropped.
EVERY_SECONDS = {
    "settle": 1.0,
    "release_dead": 2.0,
    "reconcile": 2.0,
    "find_unwitnessed": 60.0,
    "meter_gpu_time": 5.0,
    "invoice": 10.0,
    "roll_up": 2.0,
    "keep_partitions": 3600.0,
    "forget_answers": 600.0,
    "deliver_webhooks": 1.0,
    "forget_deliveries": 3600.0,
}
PROJECT_SECONDS = 2.0
ANCHOR_SECONDS = 3600.0
# Invoices wait for the next tick after that long: charges wait behind them.
INVOICING_SECONDS = 2.0
OUTAGES = (exc.OperationalError, exc.InterfaceError)
TICK_LOGGERS = ("celery.app.trace", "celery.beat", "celery.worker.strategy")

_settings = Settings()
_log = logging.getLogger(__name__)
_policy = Policy(
    spot_credit_minutes=_settings.spot_credit_minutes,
    hold_seconds=_settings.gpu_hold_seconds,
    keep_volumes_hours=_settings.keep_volumes_hours,
)


def broker_url(redis_url: str) -> str:
    """Return Celery's spelling of a Redis URL; it calls a Unix socket `redis+socket://`."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def _ticked(name: str, seconds: float) -> dict[str, object]:
    return {
        "task": f"controlplane.jobs.app.{name}",
        "schedule": seconds,
        "options": {"expires": seconds},
    }


app = Celery("flashplane", broker=broker_url(_settings.redis_url))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=1,
    beat_scheduler="controlplane.jobs.app:PatientScheduler",
    beat_schedule={name: _ticked(name, seconds) for name, seconds in EVERY_SECONDS.items()},
)
if _settings.audit_anchor_file is not None:
    app.conf.beat_schedule["anchor_audit"] = _ticked("anchor_audit", ANCHOR_SECONDS)
if _settings.project_deployments:
    app.conf.beat_schedule["project"] = _ticked("project", PROJECT_SECONDS)


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
    if _settings.audit_anchor_file is not None:
        AUDIT_ANCHORED_AT.set_to_current_time()
    if _settings.jobs_metrics_port:
        start_http_server(_settings.jobs_metrics_port)


@app.task
def settle() -> None:
    """Settle what is staged, until nothing is."""
    while _tick(settlement.settle, by_index=True):
        pass
    USAGE_WAITING.set(_tick(settlement.waiting))


@app.task
def release_dead() -> None:
    """Release what closed epochs still hold, until nothing is left."""
    while _tick(lambda s: settlement.release_dead(s, datetime.now(UTC)), by_index=True):
        pass


@app.task
def reconcile() -> None:
    """Read engines' journals, and hold the bills against them."""
    now = datetime.now(UTC)
    try:
        _reader().read(replicas.read(_store(), now.timestamp()), now)
    except RedisError:
        _log.warning("store_unavailable")
    except OUTAGES:
        _log.warning("database_unavailable")
    _tick(recovery.stage_witnessed)
    while _tick(lambda session: comparison.compare(session, datetime.now(UTC))):
        pass


@app.task
def find_unwitnessed() -> None:
    """Find bills that no engine knows; forget what has been compared long ago."""
    _tick(lambda session: comparison.find_unwitnessed(session, datetime.now(UTC)))
    while _tick(lambda session: comparison.forget(session, datetime.now(UTC))):
        pass


@app.task
def meter_gpu_time() -> None:
    """Write down which time was proven, charge what is due, stop what cannot be paid."""
    try:
        metering.write_down(_store(), _tick)
    except RedisError:
        _log.warning("store_unavailable")
    metering.charge(_tick, _policy)


@app.task
def invoice() -> None:
    """Begin and end months, and make invoices final whose grace is over."""
    now, until = datetime.now(UTC), time.monotonic() + INVOICING_SECONDS
    while _tick(lambda session: lifecycle.begin_months(session, now)):
        pass
    _tick(lambda session: lifecycle.end_months(session, now))
    while time.monotonic() < until and _tick(
        lambda session: lifecycle.finish_next(session, now, Seller.of(_settings))
    ):
        pass


@app.task
def roll_up() -> None:
    """Move what was settled into the sums by minute and hour, until nothing is left."""
    while _tick(rollups.roll_up):
        pass


@app.task
def keep_partitions() -> None:
    """Make the partitions of the months to come; drop usage that has been kept long enough."""
    now, keep_days = datetime.now(UTC), _settings.usage_retention_days
    _tick(lambda session: partitions.keep(session, now))
    while _tick(lambda s: partitions.expire(s, now, keep_days=keep_days, invoiced=coverage.covers)):
        pass
    while _tick(lambda s: rollups.forget_minutes(s, now - timedelta(days=keep_days))):
        pass


@app.task
def forget_answers() -> None:
    """Remove day-old answers to requests with an Idempotency-Key, until none is left."""
    while _tick(lambda session: answers.forget(session, datetime.now(UTC))):
        pass


@app.task
def deliver_webhooks() -> None:
    """Set off with the webhooks that are due; nobody waits here until they have arrived."""
    try:
        _courier().tick()
    except OUTAGES:
        _log.warning("database_unavailable")


@app.task
def forget_deliveries() -> None:
    """Remove webhook deliveries that ended a month ago, until none is left."""
    while _tick(lambda session: delivery.forget(session, datetime.now(UTC))):
        pass


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
def _reader() -> witnesses.Reader:
    return witnesses.Reader(_sessions(), token=_settings.engine_token.get_secret_value())


@cache
def _cluster() -> Cluster:
    from controlplane.kube import Kube  # 20 MB that only projecting needs

    return Kube(_settings.kubeconfig)


@cache
def _sessions(*, by_index: bool = False) -> sessionmaker[Session]:
    return session_factory(open_engine(_settings.database_url, pool_size=1, by_index=by_index))


def _tick(step: Callable[[Session], int], *, by_index: bool = False) -> int:
    """Return what one transaction dealt with; 0 while the database is down, the next tick tries."""
    try:
        with _sessions(by_index=by_index).begin() as session:
            return step(session)
    except OUTAGES:
        _log.warning("database_unavailable")
        return 0
