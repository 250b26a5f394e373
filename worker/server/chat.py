"""POST /v1/chat/completions."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from worker.encoding.chat import ChatPrompt, ChatStream
from worker.errors import InvalidRequest
from worker.request import FinishReason, Request
from worker.server.answer import Answer, EventStream
from worker.server.generation import Generation, Serving, generation
from worker.server.openai import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_THINKING_TOKENS,
    ChatFields,
    check_prompt,
    sampling_params,
)


def answer_chat(
    serving: Serving, fields: ChatFields, prompt: ChatPrompt, name: str, arrived: float
) -> Answer:
    """The answer to a checked request, in logs `name`, that `arrived` then (monotonic seconds).
    Raises RequestError."""
    request = _engine_request(serving, fields, prompt, arrived)
    stream = serving.chat.stream(
        prompt, response_id=f"chatcmpl-{uuid.uuid4().hex}", model=serving.limits.model
    )

    async def run(events: EventStream) -> None:
        keep_alive = events if fields.stream else None
        with generation(serving, request, name=name, keep_alive=keep_alive) as running:
            if fields.stream:
                await _streamed(running, stream, events, fields.include_usage)
            else:
                await _whole(running, stream, events)

    return Answer(run, stream=bool(fields.stream))


def _engine_request(
    serving: Serving, fields: ChatFields, prompt: ChatPrompt, arrived: float
) -> Request:
    if fields.ignore_eos and prompt.grammar is not None:
        raise InvalidRequest(
            "ignore_eos cannot be combined with response_format or strict tools", param="ignore_eos"
        )
    check_prompt(prompt.token_ids, fields, serving.limits)
    serving.client.check_available()
    default = DEFAULT_THINKING_TOKENS if prompt.thinking else DEFAULT_CHAT_TOKENS
    sampling = sampling_params(
        fields,
        serving.limits,
        max_tokens=fields.max_completion_tokens or fields.max_tokens or default,
        prompt_tokens=len(prompt.token_ids),
        default_top_p=prompt.top_p,
        logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
    )
    return Request(
        uuid.uuid4().hex,
        prompt.token_ids,
        sampling,
        cache_salt=fields.salt,
        priority=fields.priority or 0,
        fairness_key=fields.fairness_key or "",
        deadline=fields.deadline(arrived),
        grammar=prompt.grammar,
    )


async def _streamed(
    running: Generation, stream: ChatStream, events: EventStream, include_usage: bool
) -> None:
    last: dict[str, Any] = {}

    async def emit(chunks: list[dict[str, Any]], usage: dict[str, Any]) -> None:
        for chunk in chunks:
            last.update(chunk)
            await events.event({**chunk, "usage": usage})

    await _generate(running, stream, emit)
    if include_usage:
        usage = running.usage(reasoning=stream.reasoning_tokens)
        await events.event({**last, "choices": [], "usage": usage})
    await events.done()


async def _whole(running: Generation, stream: ChatStream, events: EventStream) -> None:
    async def discard(chunks: list[dict[str, Any]], usage: dict[str, Any]) -> None:
        pass

    await _generate(running, stream, discard)
    usage = running.usage(reasoning=stream.reasoning_tokens)
    await events.document({**stream.response(), "usage": usage})


async def _generate(
    running: Generation,
    stream: ChatStream,
    emit: Callable[[list[dict[str, Any]], dict[str, Any]], Awaitable[None]],
) -> None:
    """Pass every chunk of the answer to `emit`, with the usage so far."""
    first = True
    while running.finish_reason is None and not stream.stopped:
        progress = await running.next()
        if first:
            # The prompt is computed: from here on its tokens are owed, the first output is not yet.
            await emit(stream.start(), running.usage(completion=0))
            first = False
        # A stop token ends the answer and is counted, but is no part of its text.
        if progress.token is not None and progress.finish_reason is not FinishReason.STOP:
            chunks = stream.push(progress.token)
            await emit(chunks, running.usage(reasoning=stream.reasoning_tokens))
    if running.finish_reason is not None:
        chunks = stream.finish(running.finish_reason)
        await emit(chunks, running.usage(reasoning=stream.reasoning_tokens))
