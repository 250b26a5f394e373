"""Where requests wait for a deployment's first replica, and what is told of them meanwhile.

Called by `admission`, which turns away at once whoever would wait in vain, by `dispatch`, and by
`reporting`: what waits here is the demand that starts a replica. All of it runs on the event loop's
thread.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from controlplane.errors import Unavailable
from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.router import NoneOpen, Router
from controlplane.gateway.snapshot import Route
from controlplane.gateway.telemetry import HELD, HELD_SECONDS
from controlplane.registry.pools import Pool

NAP_SECONDS = 1.0
# What waits keeps its body in memory.
MAX_HELD_BYTES = 512 * 2**20
# A request that was turned away is demand all the same: some reports must tell of it.
REMEMBERED_SECONDS = 2.0
MAX_REMEMBERED = 1000
MAX_RETRY_AFTER_SECONDS = 600
DEFAULT_RETRY_AFTER_SECONDS = 10

WhileHeld = Callable[[], Awaitable[None]]


class ModelStarting(Unavailable):
    """The model's deployment has no replica yet; worth a retry when it may have one."""

    default_code = "model_starting"


class WaitingRoom:
    """Holds requests in the order of their arrival.

    Args:
        router: says when there is a replica.
        max_requests: how many may wait on one route.
    """

    def __init__(self, router: Router, *, max_requests: int) -> None:
        self._router = router
        self._max_requests = max_requests
        self._waiting: Counter[Route] = Counter()
        self._held_bytes = 0
        self._sleepers: dict[asyncio.Event, None] = {}
        self._turned_away: dict[str, deque[float]] = {}  # when, by pool
        router.watch(self._wake)

    def check(self, route: Route) -> None:
        """Pass a request that can be served or may wait.

        Raises:
            NoneOpen: nobody serves it, and no deployment could.
            ModelStarting: its deployment does not hold requests now, or holds too many.
        """
        served = self._router.served(route)
        if not served.open and (self._patience_seconds(route) <= 0 or self._is_full(route, 0)):
            raise self._refusal(route)

    async def wait(
        self,
        route: Route,
        body_bytes: int,
        cancellation: Cancellation,
        *,
        since: float,
        patient_until: float,
        while_held: WhileHeld | None,
    ) -> float:
        """Return when a replica is open; until when, of the monotonic clock, it would have waited.

        Args:
            route: what it waits for.
            body_bytes: how much memory it takes.
            cancellation: ends the wait.
            since: when it first waited; its deployment says how long it may.
            patient_until: how long it waits at least, whatever its deployment says.
            while_held: called again and again meanwhile.

        Raises:
            NoneOpen: nobody serves it, and no deployment could.
            ModelStarting: there is no replica in time, or too many wait.
            Aborted: cancelled.
        """
        began = time.monotonic()
        # An answer that was begun is not given up because others wait to begin.
        if patient_until <= began and self._is_full(route, body_bytes):
            raise self._refusal(route)
        HELD.inc()
        self._waiting[route] += 1
        self._held_bytes += body_bytes
        try:
            while True:
                # Asked again each time: the deployment may have been stopped meanwhile.
                until = max(patient_until, since + self._patience_seconds(route))
                if self._router.served(route).open:
                    return until
                now = time.monotonic()
                if now >= until:
                    raise self._refusal(route)
                await self._nap(min(until - now, NAP_SECONDS), cancellation)
                if while_held is not None and not self._router.served(route).open:
                    await while_held()
        finally:
            self._waiting[route] -= 1
            if not self._waiting[route]:
                del self._waiting[route]
            self._held_bytes -= body_bytes
            HELD.dec()
            HELD_SECONDS.observe(time.monotonic() - began)

    def held(self) -> dict[str, int]:
        """Return how many requests wait, by pool, those just turned away included."""
        found: Counter[str] = Counter()
        for route, waiting in self._waiting.items():
            pool = self._router.served(route).pool
            if pool is not None:
                found[pool.name] += waiting
        forgotten_before = time.monotonic() - REMEMBERED_SECONDS
        for name, moments in list(self._turned_away.items()):
            while moments and moments[0] < forgotten_before:
                moments.popleft()
            if moments:
                found[name] += len(moments)
            else:
                del self._turned_away[name]
        return dict(found)

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            sleeper.set()

    async def _nap(self, seconds: float, cancellation: Cancellation) -> None:
        """Sleep until the next snapshot. Whoever slept first wakes first."""
        woken = asyncio.Event()
        self._sleepers[woken] = None
        cancellation.attach(woken.set)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            del self._sleepers[woken]
            cancellation.detach()
        cancellation.check()

    def _patience_seconds(self, route: Route) -> float:
        pool = self._router.served(route).pool
        return pool.hold_timeout_seconds if pool is not None and pool.startable else 0.0

    def _is_full(self, route: Route, body_bytes: int) -> bool:
        return (
            self._waiting[route] >= self._max_requests
            or self._held_bytes + body_bytes > MAX_HELD_BYTES
        )

    def _refusal(self, route: Route) -> Unavailable:
        pool = self._router.served(route).pool
        if pool is None:
            return NoneOpen(f"no replica of {route.model!r} is ready")
        if pool.startable:
            moments = self._turned_away.setdefault(pool.name, deque(maxlen=MAX_REMEMBERED))
            moments.append(time.monotonic())
        return _starting(pool)


def _starting(pool: Pool) -> ModelStarting:
    message = f"The model {pool.model!r} is not ready yet (phase {pool.phase})"
    retry_after_seconds = DEFAULT_RETRY_AFTER_SECONDS
    if not pool.startable:
        message += " and is not started by requests."
    elif pool.eta_seconds is None:
        message += "; how long it will take is not known."
    else:
        seconds = max(math.ceil(pool.eta_seconds), 1)
        message += f"; it should serve in about {seconds} s."
        retry_after_seconds = min(seconds, MAX_RETRY_AFTER_SECONDS)
    return ModelStarting(message, retry_after_seconds=retry_after_seconds)
