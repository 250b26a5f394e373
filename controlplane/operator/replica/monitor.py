"""Collects `Signals`: asks engines, reads gateways' reports, adds what nodes told. One thread.

Controllers read `signals()`; a change that matters asks for a round of its replica. Run by `main`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable

import aiohttp
import redis

from controlplane.operator.health.board import Board
from controlplane.operator.replica.asking import Asking, Target
from controlplane.operator.signals import EngineState, Signals
from controlplane.registry import gateways
from controlplane.registry.gateways import GatewayReport
from controlplane.store import Store

LOOK_SECONDS = 0.5
AT_ONCE = 64  # engines asked at the same time
# More would take more than a fifth of a core: beyond it, engines at rest are asked less often.
MOST_A_SECOND = 400
RELAXED_SECONDS = 2.0
# Reports older than this are of gateways that will not come back.
FORGOTTEN_SECONDS = 86_400.0

_log = logging.getLogger(__name__)


class Monitor:
    """A `main.Part`. `targets` is asked every `LOOK_SECONDS` and must be quick."""

    def __init__(
        self,
        targets: Callable[[], Iterable[Target]],
        store: Store,
        board: Board,
        *,
        changed: Callable[[tuple[str, str]], None],
        engine_token: str = "",
    ) -> None:
        """Prepare.

        Args:
            changed: told the key of a replica whose engine has something new to say.
            engine_token: what engines ask for; empty: nothing.
        """
        self._targets = targets
        self._store = store
        self._board = board
        self._changed = changed
        self._headers = {"Authorization": f"Bearer {engine_token}"} if engine_token else {}
        self._engines: dict[str, EngineState] = {}
        self._count = 0  # engines to ask
        self._reports: tuple[GatewayReport, ...] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def signals(self) -> Signals:
        """Return everything known now."""
        return Signals(
            gateways=self._reports,
            engines=dict(self._engines),
            notices=self._board.notices(),
            gpu_errors=self._board.errors(),
        )

    def engine(self, uid: str) -> EngineState | None:
        """Return what one replica's engine told last."""
        return self._engines.get(uid)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; does not wait."""
        self._stopping.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        # A thousand engines are asked by this thread: this client costs a tenth of others.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        ) as client:
            followers: dict[str, tuple[Target, asyncio.Task[None]]] = {}
            at_once = asyncio.Semaphore(AT_ONCE)
            while not self._stopping.is_set():
                self._reports = await asyncio.to_thread(self._read_reports)
                self._follow({it.uid: it for it in self._targets()}, followers, client, at_once)
                await asyncio.sleep(LOOK_SECONDS)
            for _, task in followers.values():
                task.cancel()
            await asyncio.gather(*(it for _, it in followers.values()), return_exceptions=True)

    def _read_reports(self) -> tuple[GatewayReport, ...] | None:
        try:
            read = gateways.TABLE.read(self._store, time.time(), stale_seconds=FORGOTTEN_SECONDS)
        except redis.RedisError as error:
            if self._reports is not None:
                _log.warning("gateway_reports_unreadable", extra={"reason": type(error).__name__})
            return None
        return tuple(read)

    def _follow(
        self,
        targets: dict[str, Target],
        followers: dict[str, tuple[Target, asyncio.Task[None]]],
        client: aiohttp.ClientSession,
        at_once: asyncio.Semaphore,
    ) -> None:
        for uid, (target, task) in list(followers.items()):
            if targets.get(uid) != target:
                task.cancel()
                del followers[uid]
                if uid not in targets:
                    self._engines.pop(uid, None)
        self._count = len(targets)
        for uid, target in targets.items():
            if uid not in followers:
                known = self._engines.get(uid)
                asking = Asking(client, target)
                if known is not None and known.started_at == target.started_at:
                    asking.state = known  # only the interval or the address is another
                task = asyncio.create_task(self._ask_on(asking, at_once))
                followers[uid] = target, task

    async def _ask_on(self, asking: Asking, at_once: asyncio.Semaphore) -> None:
        uid = asking.target.uid
        while True:
            async with at_once:
                try:
                    state = await asking.ask()
                except Exception:
                    # The task's entry: one engine's odd answer must not end what is known of it.
                    _log.exception("engine_not_asked", extra={"replica": uid})
                    state = asking.state
            before = self._engines.get(uid)
            if state is not None:
                self._engines[uid] = state
                if before is None or _says(before) != _says(state):
                    self._changed(asking.target.key)
            await asyncio.sleep(pause_seconds(asking.target.every_seconds, self._count))


def pause_seconds(every_seconds: float, engines: int) -> float:
    """Return how long one of so many engines is left alone; what starts or drains is not made to
    wait for those that merely serve."""
    if every_seconds < RELAXED_SECONDS:
        return every_seconds
    return max(every_seconds, engines / MOST_A_SECOND)


def _says(state: EngineState) -> tuple[object, ...]:
    """What a plan for the replica depends on."""
    idle = state.running == 0 and state.waiting == 0
    return state.healthy, state.proven, state.started_at, idle, state.error
