"""Runs the product from start to stop; called by `flashplane up`."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from controlplane.billing.settlement import settle
from controlplane.db import open_engine, session_factory
from controlplane.processes.files import disk_errors_explained, fingerprint
from controlplane.processes.process import bound_log, identify
from controlplane.processes.table import SUPERVISOR, ProcessTable
from controlplane.settings import Settings
from controlplane.supervisor.announcement import Announcement
from controlplane.supervisor.built_in import BuiltInModel
from controlplane.supervisor.layout import Layout
from controlplane.supervisor.orphans import stop_orphans, stop_pods
from controlplane.supervisor.ports import check_port
from controlplane.supervisor.progress import Progress
from controlplane.supervisor.services import STOP_ORDER, Addresses
from controlplane.supervisor.start import Start
from controlplane.supervisor.tree import Tree

WATCH_SECONDS = 0.1


@dataclass(frozen=True)
class Options:
    """What the command line asks for. `max_model_len`: None is as the model is served."""

    addresses: Addresses
    model: BuiltInModel
    max_model_len: int | None
    fresh: bool = False


def run(
    settings: Settings,
    options: Options,
    progress: Progress,
    on_ready: Callable[[Announcement], None],
) -> None:
    """Start the product, keep it alive until SIGINT, SIGTERM or SIGHUP, stop it in order.

    Raises:
        StartupError: it cannot start; everything that was started is stopped again.
    """
    layout = Layout(settings.data_dir.absolute())
    with disk_errors_explained(layout.root), layout.owned(), _signals_interrupt():
        table = ProcessTable(layout.process_file)
        stop_orphans(table, progress.say)
        stop_pods(layout.pods, progress.say)
        layout.up_file.unlink(missing_ok=True)
        if options.fresh:
            layout.wipe()
        _check_ports(options.addresses)
        tree = Tree(table, layout.logs, progress.say)
        start = Start(
            settings,
            layout,
            options.addresses,
            options.model,
            options.max_model_len,
            tree,
            progress,
        )
        try:
            itself = identify(os.getpid())
            assert itself is not None
            table.record(SUPERVISOR, itself)
            announcement = start.run()
            announcement.save(layout.up_file, table.processes)
            on_ready(announcement)
            _watch(tree, table, announcement, layout)
        except KeyboardInterrupt:
            progress.say("Stopping")
        finally:
            with _signals_ignored():
                _stop(start, table)
                layout.tidy()
                table.remove(SUPERVISOR)


def _check_ports(addresses: Addresses) -> None:
    host = addresses.host
    check_port(host, addresses.port, flag="--port", purpose="gateway")
    check_port(host, addresses.admin_port, flag="--admin-port", purpose="admin API")
    check_port("127.0.0.1", addresses.worker_port, flag="--worker-port", purpose="engine worker")


def _watch(tree: Tree, table: ProcessTable, announcement: Announcement, layout: Layout) -> None:
    """Keep the children alive and what is told of them true, until interrupted.

    Both files are put right when somebody damages or removes one: `down` and scripts need them.
    """

    def truth() -> tuple[object, ...]:
        files = (layout.process_file, layout.up_file)
        return dict(table.processes), *map(fingerprint, files)

    told = truth()
    while True:
        tree.tick()
        if told != truth():
            with suppress(OSError):  # a full disk; the next round tries again
                table.save()
                announcement.save(layout.up_file, table.processes)
                told = truth()
        bound_log(layout.supervisor_log)
        time.sleep(WATCH_SECONDS)


def _stop(start: Start, table: ProcessTable) -> None:
    """Stop the children in order; what the gateway shipped last is settled before its home goes."""
    for name in STOP_ORDER:
        if name not in table.processes:
            continue
        if name == "worker":
            _settle_the_rest(start)
        with start.progress.step(f"Stopped {name}", underway=f"Stopping {name}"):
            start.tree.stop(name)
        if name == "operator":  # it ends its pods, unless it was killed
            stop_pods(start.layout.pods, start.progress.say)
        if name == "gateway" and start.heartbeat is not None:
            start.heartbeat.stop()


def _settle_the_rest(start: Start) -> None:
    engine = open_engine(start.database_url, pool_size=1, by_index=True)
    sessions = session_factory(engine)
    try:
        settled = 1
        while settled:
            with sessions.begin() as session:
                settled = settle(session)
    except SQLAlchemyError:
        start.progress.say("The last requests could not be settled now; the next start does it")
    finally:
        engine.dispose()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers(interrupt, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Stopping has begun; asking again does not make it quicker, and must not break it off."""
    with _handlers(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def _handlers(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, *signals: signal.Signals
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
