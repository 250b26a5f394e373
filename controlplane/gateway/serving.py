"""A request for a completion, of a chat or of text, from bytes to bytes. Called by `app`."""

import time

from controlplane.errors import Unavailable
from controlplane.gateway import body, sse
from controlplane.gateway.admission import Admission, Admitted
from controlplane.gateway.aliases import Aliases
from controlplane.gateway.auth import Authenticator, bearer_token
from controlplane.gateway.body import GenerationRequest
from controlplane.gateway.call import Call
from controlplane.gateway.cancellation import Aborted
from controlplane.gateway.chunks import Chunk, MalformedChunk
from controlplane.gateway.dispatch import Answer, Dispatcher, Order
from controlplane.gateway.generation import (
    KEEP_ALIVE,
    KEEP_ALIVE_SECONDS,
    EngineFailed,
    Generation,
)
from controlplane.gateway.merge import Merger
from controlplane.gateway.meter import Meter
from controlplane.gateway.refusals import PromptExceedsLimit
from controlplane.gateway.reply import Reply
from controlplane.gateway.router import Router
from controlplane.gateway.waiting import WhileHeld


class Serving:
    """Serves completions with the parts it is made of."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        aliases: Aliases,
        router: Router,
        admission: Admission,
        dispatcher: Dispatcher,
        pepper: bytes,
        hold_silence_seconds: float,
        hold_silence_whole_seconds: float,
    ) -> None:
        self._authenticator = authenticator
        self._aliases = aliases
        self._router = router
        self._admission = admission
        self._dispatcher = dispatcher
        self._pepper = pepper
        self._hold_silence_seconds = hold_silence_seconds
        self._hold_silence_whole_seconds = hold_silence_whole_seconds

    async def serve(self, call: Call) -> None:
        """Answer a call.

        Raises:
            ControlPlaneError: to be sent to the client; books are in order.
            Aborted: nobody waits for the answer; books are in order.
        """
        principal = await self._authenticator.principal(bearer_token(call.headers))
        call.tenant_id = principal.tenant_id
        principal.may("inference")
        request = call.endpoint.parse(call.content)
        own = self._router.dedicated_models(str(principal.tenant_id))
        request = body.named(request, self._aliases.target(request.model, own))
        call.model = request.model
        admitted = await self._admission.admit(
            call.request_id, principal, request, call.started_at_us
        )
        call.meter = admitted.meter
        finish_reason = "error"
        try:
            admitted.meter.open()
            await self._answer(call, request, admitted)
        except Aborted:
            finish_reason = "aborted"
            raise
        except (EngineFailed, MalformedChunk) as error:
            raise Unavailable("the engine failed", code="engine_failed") from error
        finally:
            await admitted.meter.finish(finish_reason)

    async def _answer(self, call: Call, request: GenerationRequest, admitted: Admitted) -> None:
        answer = await self._dispatch(call, request, admitted)
        generation = Generation(self._dispatcher, answer, admitted.meter)
        try:
            if request.stream:
                await _stream(call.reply, generation, admitted.meter, request.include_usage)
            else:
                await _buffer(call.reply, generation, admitted.meter, call.endpoint.merger())
        finally:
            await generation.close()

    async def _dispatch(self, call: Call, request: GenerationRequest, admitted: Admitted) -> Answer:
        try:
            return await self._dispatch_once(call, request, admitted)
        except PromptExceedsLimit as refusal:
            count = refusal.prompt_tokens
        admitted = await self._admission.admit_again(admitted, request, count)
        try:
            return await self._dispatch_once(call, request, admitted)
        except PromptExceedsLimit as error:
            message = "the engines disagree on the prompt's length"
            raise Unavailable(message, code="engine_failed") from error

    async def _dispatch_once(
        self, call: Call, request: GenerationRequest, admitted: Admitted
    ) -> Answer:
        assert call.tenant_id is not None
        content = body.rewrite(
            request,
            prompt_tokens=admitted.plan.prompt_tokens,
            max_tokens=admitted.plan.completion_tokens,
            salt=body.cache_salt(self._pepper, call.tenant_id, request.user_id),
            fairness=body.fairness_key(self._pepper, call.tenant_id),
        )
        order = Order(
            route=admitted.route,
            endpoint=f"/v1{call.endpoint.path}",
            body=content,
            request_id=str(call.request_id),
            cancellation=call.cancellation,
        )
        return await self._dispatcher.dispatch(order, self._while_held(call.reply, request.stream))

    def _while_held(self, reply: Reply, streams: bool) -> WhileHeld:
        """Return what tells a client now and then that its request is held: nothing at first, while
        the answer may still have a status of its own."""
        silence = self._hold_silence_seconds if streams else self._hold_silence_whole_seconds
        next_at = time.monotonic() + silence

        async def tell() -> None:
            nonlocal next_at
            if time.monotonic() < next_at:
                return
            next_at = time.monotonic() + KEEP_ALIVE_SECONDS
            if streams:
                await reply.stream(sse.encode_comment(KEEP_ALIVE.comment))
            else:
                await reply.blank()

        return tell


async def _stream(reply: Reply, generation: Generation, meter: Meter, include_usage: bool) -> None:
    """Forward an answer as it comes; its end, from the finish reason on, once FINAL is durable."""
    ending: list[Chunk] = []
    while (items := await generation.next()) is not None:
        out: list[bytes] = []
        for item in items:
            if not isinstance(item, Chunk):
                out.append(sse.encode_comment(item.comment))
            elif not item.has_choices:
                continue  # OpenAI's closing chunk: ours is made from the meter
            elif ending or item.finish_reason is not None:
                ending.append(item)
            else:
                out.append(sse.encode(item.encode()))
        if out:
            await reply.stream(b"".join(out))
    assert ending
    assert generation.finish_reason is not None
    await meter.finish(generation.finish_reason)
    last = [sse.encode(chunk.encode()) for chunk in ending[:-1]]
    if include_usage:
        last.append(sse.encode(ending[-1].encode()))
        last.append(sse.encode(ending[-1].encode_usage_alone(meter.usage)))
    else:
        last.append(sse.encode(ending[-1].encode(meter.usage)))
    last.append(sse.encode(sse.DONE))
    await reply.stream(b"".join(last))
    await reply.end()


async def _buffer(reply: Reply, generation: Generation, meter: Meter, merger: Merger) -> None:
    """Answer with the whole completion."""
    while (items := await generation.next()) is not None:
        for item in items:
            if isinstance(item, Chunk):
                merger.add(item)
    assert generation.finish_reason is not None
    await meter.finish(generation.finish_reason)
    await reply.json(200, merger.result(meter.usage))
