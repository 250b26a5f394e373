"""Whether a request may run, and how much of it its tenant's balance covers. Called by `serving`.

After `admit` a hold is durable and the journal knows of it; from then on the request's `Meter` must
be finished, whatever happens, and that gives the hold back less the bill. A request that is
refused here leaves neither hold nor journal record.
"""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.holds import HoldRequest
from controlplane.errors import Unavailable
from controlplane.gateway.body import GenerationRequest
from controlplane.gateway.holding import HoldBatcher
from controlplane.gateway.meter import Meter
from controlplane.gateway.prices import Prices
from controlplane.gateway.refusals import context_length_exceeded
from controlplane.gateway.router import Router
from controlplane.gateway.shipping import Shipper
from controlplane.gateway.snapshot import Route
from controlplane.gateway.waiting import WaitingRoom
from controlplane.pricing.rating import Price
from controlplane.tenants.keys import Principal
from controlplane.usage.journal import Journal
from controlplane.usage.records import Opened

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request whose money is set aside."""

    plan: HoldPlan
    route: Route
    price: Price
    meter: Meter
    max_model_len: int


class Admission:
    """Admits requests into one gateway epoch."""

    def __init__(
        self,
        *,
        epoch_id: uuid.UUID,
        prices: Prices,
        router: Router,
        room: WaitingRoom,
        holds: HoldBatcher,
        journal: Journal,
        shipper: Shipper,
        min_free_bytes: int,
    ) -> None:
        self._epoch_id = epoch_id
        self._prices = prices
        self._router = router
        self._room = room
        self._holds = holds
        self._journal = journal
        self._shipper = shipper
        self._min_free_bytes = min_free_bytes

    async def admit(
        self,
        request_id: uuid.UUID,
        principal: Principal,
        request: GenerationRequest,
        started_at_us: int,
    ) -> Admitted:
        """Set aside what the request can cost: nothing at all on a dedicated deployment, whose GPU
        time is paid for, so that an account that is empty may use it as long as it lives.

        A request that will have to wait for a replica is held like any other.

        Raises:
            ModelNotFound: the model has no price, or is another tenant's.
            Unavailable: no replica is ready nor worth waiting for, the journal's disk is full, the
                database is down.
            InsufficientBalance: the account cannot cover the request.
        """
        if self._journal.free_bytes() < self._min_free_bytes:
            raise Unavailable(
                "the gateway's disk is full", code="disk_full", retry_after_seconds=30
            )
        route = self._router.resolve(request.model, str(principal.tenant_id))
        # The moment a request came decides, and its receipt tells it: that cannot be disputed.
        arrived = _EPOCH + timedelta(microseconds=started_at_us)
        price = self._prices.book.price(route.model, route.path, arrived, principal.tenant_id)
        self._room.check(route)
        max_model_len = self._router.max_model_len(route)
        plan = await self._holds.place(
            HoldRequest(
                request_id=request_id,
                tenant_id=principal.tenant_id,
                api_key_id=principal.api_key_id,
                epoch_id=self._epoch_id,
                price=price,
                # No context is longer, so no hold need be: the engine refuses what is.
                prompt_tokens=min(request.prompt_guess_tokens, max_model_len),
                max_tokens=min(request.max_tokens, max_model_len),
                shrinkable=not request.max_tokens_given,
            )
        )
        opened = Opened(
            request_id=request_id,
            tenant_id=principal.tenant_id,
            api_key_id=principal.api_key_id,
            model=route.model,
            path=route.path,
            thinking=request.thinking,
            streamed=request.stream,
            price_version_id=price.version_id,
            started_at_us=started_at_us,
            band=price.band,
            prompt_tokens=plan.prompt_tokens,
            completion_tokens=plan.completion_tokens,
            amount_p=plan.amount_p,
        )
        meter = Meter(self._journal, self._shipper, opened)
        return Admitted(plan, route, price, meter, max_model_len)

    async def admit_again(
        self, admitted: Admitted, request: GenerationRequest, prompt_tokens: int
    ) -> Admitted:
        """Replace the hold by one that covers `prompt_tokens`, an engine's true count.

        Raises:
            ContextLengthExceeded: no replica's context has room for the prompt and one token.
            InsufficientBalance: the account cannot cover the longer prompt.
            Unavailable: the database is down, or the journal's disk is full.
        """
        if prompt_tokens >= admitted.max_model_len:
            raise context_length_exceeded(
                prompt_tokens, admitted.max_model_len, param=request.prompt_field
            )
        opened = admitted.meter.opened
        plan = await self._holds.place(
            HoldRequest(
                request_id=opened.request_id,
                tenant_id=opened.tenant_id,
                api_key_id=opened.api_key_id,
                epoch_id=self._epoch_id,
                price=admitted.price,
                prompt_tokens=prompt_tokens,
                max_tokens=min(request.max_tokens, admitted.max_model_len),
                shrinkable=not request.max_tokens_given,
                exact_prompt=True,
            )
        )
        admitted.meter.reopen(plan)
        return replace(admitted, plan=plan)
