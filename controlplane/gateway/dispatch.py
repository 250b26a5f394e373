"""An order to an engine that answers it: choice, retries, refusals.

Called by `serving`, and by `generation` when an engine was lost. Where to and how often is decided
here alone. An engine that was not reached, or that refused the order as overloaded, costs nothing,
and the next is asked at once. An order that an engine took and lost is worth waiting for: one that
is being restarted, or has room again, may take it. How often it may be lost is bounded, should it
be the order that ends its engines.
"""

import time
from dataclasses import dataclass

from controlplane.errors import Unavailable
from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.connection import ConnectionLost, UpstreamError, UpstreamTimeout
from controlplane.gateway.refusals import TryAnother, classify, parse_error
from controlplane.gateway.router import NoneOpen, NoReplica, Router
from controlplane.gateway.snapshot import Route
from controlplane.gateway.upstream import ConnectFailed, Response, Upstream
from controlplane.gateway.visit import Visit
from controlplane.gateway.waiting import WaitingRoom, WhileHeld
from controlplane.registry.replicas import Replica

MAX_ATTEMPTS = 3
MAX_LOSSES = 5
MIN_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
MAX_ERROR_BYTES = 64 * 1024


@dataclass(slots=True)
class Order:
    """One request for whichever engine takes it.

    `route` says who may, `endpoint` is where an engine takes it, `body` is what it gets;
    the rest is the order's fate.
    """

    route: Route
    endpoint: str
    body: bytes
    request_id: str
    cancellation: Cancellation
    losses: int = 0
    lost_on: str | None = None
    patient_until: float = 0.0
    held_since: float | None = None


@dataclass(slots=True)
class Answer:
    """An engine's answer whose first bytes have arrived; `close` it when done."""

    order: Order
    visit: Visit
    response: Response
    first: bytes

    def close(self) -> None:
        """Free the connection and the replica's slot."""
        self.response.close()
        self.visit.leave()


class Dispatcher:
    """Finds an engine that answers.

    Args:
        router: says which engines there are.
        room: where an order waits while there is none.
        upstream: speaks to them.
        patience_seconds: how long an order that was lost waits for another engine.
    """

    def __init__(
        self, router: Router, room: WaitingRoom, upstream: Upstream, *, patience_seconds: float
    ) -> None:
        self._router = router
        self._room = room
        self._upstream = upstream
        self._patience_seconds = patience_seconds

    async def dispatch(self, order: Order, while_held: WhileHeld | None = None) -> Answer:
        """Return the answer to `order` of the first engine that gives one.

        `while_held` is called again and again while there is nobody to ask.

        Raises:
            PromptExceedsLimit: the engine counted more prompt tokens than `max_prompt_tokens`.
            InvalidRequest: the engine refuses the request, whichever engine it is.
            ModelStarting: the order's deployment had no replica in time.
            Unavailable: no engine answered.
            Aborted: the order was cancelled.
        """
        rounds = 0
        while True:
            try:
                return await self._ask_around(order)
            except NoneOpen:
                order.held_since = order.held_since or time.monotonic()
                # One that has just started may have no room for all who waited: be patient on.
                order.patient_until = await self._room.wait(
                    order.route,
                    len(order.body),
                    order.cancellation,
                    since=order.held_since,
                    patient_until=order.patient_until,
                    while_held=while_held,
                )
                continue
            except NoReplica:
                pause_seconds = _pause_seconds(rounds)
                if time.monotonic() + pause_seconds > order.patient_until:
                    raise
            await order.cancellation.sleep(pause_seconds)
            rounds += 1
            if while_held is not None:
                await while_held()

    async def move(self, order: Order, replica: Replica) -> Answer:
        """Dispatch anew what `replica` will not answer to the end; raises as `dispatch` does."""
        self._lose(order, replica)
        if order.losses > 1:
            # It may be the order's doing: easy on whoever is left.
            await order.cancellation.sleep(_pause_seconds(order.losses - 2))
        return await self.dispatch(order)

    def _lose(self, order: Order, replica: Replica) -> None:
        order.losses += 1
        order.lost_on = replica.id
        order.patient_until = time.monotonic() + self._patience_seconds
        if order.losses > MAX_LOSSES:
            raise Unavailable("one engine after another failed", code="engine_failed")

    async def _ask_around(self, order: Order) -> Answer:
        # Whoever lost it is asked again only if there is nobody else.
        tried = [] if order.lost_on is None else [order.lost_on]
        for _ in range(MAX_ATTEMPTS):
            order.cancellation.check()
            replica = self._router.choose(order.route, tried)
            if tried.count(replica.id) == 2:
                break
            tried.append(replica.id)
            visit = self._router.enter(replica)
            try:
                return await self._attempt(visit, order)
            except TryAnother:
                visit.leave(failed=True)
            except BaseException as error:
                visit.leave(failed=isinstance(error, Unavailable))
                raise
        raise NoReplica(f"no replica of {order.route.model!r} answered", code="engine_unavailable")

    async def _attempt(self, visit: Visit, order: Order) -> Answer:
        replica = visit.replica
        try:
            response = await self._upstream.post(
                replica.url,
                order.endpoint,
                order.body,
                request_id=order.request_id,
                cancellation=order.cancellation,
            )
            try:
                if response.status != 200:
                    raise await _refusal(response)
                first = await response.read()
            except BaseException:
                response.close()
                raise
        except ConnectFailed as error:
            self._router.eject(replica)
            raise TryAnother from error
        except ConnectionLost as error:
            self._lose(order, replica)
            raise TryAnother from error
        except UpstreamTimeout as error:
            raise Unavailable("the engine did not answer in time", code="engine_timeout") from error
        except UpstreamError as error:
            raise Unavailable("the engine failed", code="engine_failed") from error
        return Answer(order, visit, response, first)


def _pause_seconds(pauses_before: int) -> float:
    return min(MIN_PAUSE_SECONDS * 2.0**pauses_before, MAX_PAUSE_SECONDS)


async def _refusal(response: Response) -> Exception:
    """Return what an answer other than 200 means to the request."""
    content = b""
    while len(content) < MAX_ERROR_BYTES and (data := await response.read()):
        content += data
    return classify(response.status, parse_error(content))
