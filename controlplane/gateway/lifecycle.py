"""A gateway's life: recovery, background tasks, a clean end. Made by `app`.

Until its last life's journal has been replayed a gateway admits nothing. PostgreSQL being down only
delays that; a journal owned by another process, or a setting that makes no sense, ends the start.
"""

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass

from controlplane.accounts import epochs
from controlplane.errors import StartupError, Unavailable
from controlplane.gateway.admission import Admission
from controlplane.gateway.aliases import Aliases
from controlplane.gateway.auth import Authenticator
from controlplane.gateway.database import Database
from controlplane.gateway.dispatch import Dispatcher
from controlplane.gateway.holding import HoldBatcher
from controlplane.gateway.policies import policy
from controlplane.gateway.polling import poll, poll_once
from controlplane.gateway.prices import Prices
from controlplane.gateway.reporting import Reporter
from controlplane.gateway.router import Router
from controlplane.gateway.serving import Serving
from controlplane.gateway.shipping import Shipper
from controlplane.gateway.upstream import Upstream
from controlplane.gateway.waiting import WaitingRoom
from controlplane.settings import Settings
from controlplane.store import open_store
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.recovery import recover

RECOVERY_RETRY_SECONDS = 0.5
SHIP_TIMEOUT_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What exists only while this gateway owns an epoch."""

    id: uuid.UUID
    journal: Journal
    shipper: Shipper
    serving: Serving


class Gateway:
    """All parts of a running gateway.

    Raises:
        StartupError: a setting makes no sense.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.key_pepper.get_secret_value():
            raise StartupError("FLASHPLANE_KEY_PEPPER is empty: set it to a long random secret.")
        try:
            self.router = Router(policy(settings.router_policy))
        except ValueError as error:
            raise StartupError(f"FLASHPLANE_ROUTER_POLICY: {error}.") from error
        self._settings = settings
        self.room = WaitingRoom(self.router, max_requests=settings.hold_max_requests)
        token = settings.engine_token.get_secret_value()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise StartupError("FLASHPLANE_ENGINE_TOKEN must be printable ASCII without spaces.")
        self._pepper = settings.key_pepper.get_secret_value().encode()
        self.epoch: Epoch | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to live: recover at once if the database is up, else as soon as it is.

        Raises:
            StartupError: another process owns the journal.
        """
        settings = self._settings
        self._directory = JournalDir(
            settings.journal_dir,
            keep_seconds=settings.journal_keep_hours * 3600,
            reserve_bytes=settings.journal_min_free_bytes,
        )
        self._database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            timeout_seconds=settings.database_timeout_seconds,
        )
        self._store = open_store(settings.redis_url)
        self._upstream = Upstream(
            first_byte_timeout_seconds=settings.upstream_first_byte_timeout_seconds,
            idle_timeout_seconds=settings.upstream_idle_timeout_seconds,
            token=settings.engine_token.get_secret_value(),
        )
        self.prices = Prices(self._database)
        self.aliases = Aliases(self._database)
        self.authenticator = Authenticator(
            self._database, self._pepper, settings.key_pepper_previous.get_secret_value().encode()
        )
        self.holds = HoldBatcher(self._database)
        await poll_once(self._store, self.router)
        self._spawn(poll(self._store, self.router))
        self._reporter = Reporter(self._store, self.router, self.room, settings.gateway_name)
        self._spawn(self._reporter.run())
        try:
            await self._begin_epoch()
        except Unavailable:
            _log.warning("database_is_down")
            self._spawn(self._begin_epoch_later())

    @property
    def is_ready(self) -> bool:
        """Whether requests are admitted."""
        return self.epoch is not None and not self.holds.is_replaced

    async def _begin_epoch_later(self) -> None:
        while self.epoch is None:
            await asyncio.sleep(RECOVERY_RETRY_SECONDS)
            try:
                await self._begin_epoch()
            except Unavailable:
                continue

    async def _begin_epoch(self) -> None:
        settings, database = self._settings, self._database
        await self.prices.refresh()
        await self.aliases.refresh()
        epoch_id = await database.off_loop(
            lambda: recover(database.sessions, self._directory, settings.gateway_name)
        )
        journal = Journal(self._directory, epoch_id)
        shipper = Shipper(database, journal)
        admission = Admission(
            epoch_id=epoch_id,
            prices=self.prices,
            router=self.router,
            room=self.room,
            holds=self.holds,
            journal=journal,
            shipper=shipper,
            min_free_bytes=settings.journal_min_free_bytes,
        )
        serving = Serving(
            authenticator=self.authenticator,
            aliases=self.aliases,
            router=self.router,
            admission=admission,
            dispatcher=Dispatcher(
                self.router,
                self.room,
                self._upstream,
                patience_seconds=settings.resume_patience_seconds,
            ),
            pepper=self._pepper,
            hold_silence_seconds=settings.hold_silence_seconds,
            hold_silence_whole_seconds=settings.hold_silence_whole_seconds,
        )
        for task in (self.prices.run(), self.holds.run(), self.holds.run_releases(), shipper.run()):
            self._spawn(task)
        for task in (self.aliases.run(), self.authenticator.run()):
            self._spawn(task)
        self.epoch = Epoch(epoch_id, journal, shipper, serving)
        _log.info("gateway_ready", extra={"epoch_id": str(epoch_id)})

    async def stop(self) -> None:
        """End cleanly; no request may be running. What cannot be staged now is replayed."""
        epoch, self.epoch = self.epoch, None
        if epoch is not None:
            try:
                async with asyncio.timeout(SHIP_TIMEOUT_SECONDS):
                    await epoch.shipper.drained()
                    await self._database.run(epochs.close, epoch.id)
            except (TimeoutError, Unavailable):
                _log.warning("usage_left_to_the_next_start")
            await epoch.journal.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reporter.withdraw()
        self._upstream.close()
        self._database.close()
        self._store.close()
        self._directory.close()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background_task_died", exc_info=error)
