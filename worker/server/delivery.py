"""Answers a request with its choices: one in most, several with `n`. Chat and completions say what
their choices are made of; how an answer begins, goes on and ends is here, once for both.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from worker.encoding.grammar import AnswerGrammar
from worker.request import FinishReason, Request, SamplingParams
from worker.scheduler import Progress
from worker.server.answer import Answer, EventStream
from worker.server.choice import Choice, Entry, Reader
from worker.server.generation import Generation, Serving, generation
from worker.server.openai import GenerationFields, check_resumption, choice_seed

INLINE_REPLAY_TOKENS = 256


def answer(
    serving: Serving,
    fields: GenerationFields,
    choices: Sequence[Choice],
    document: dict[str, Any],
    *,
    name: str,
    chunk_object: str,
) -> Answer:
    """The answer to a checked request, in logs and in the journal `name`. `document`: what a whole
    answer says beside choices and usage; a chunk says the same, but is a `chunk_object`."""

    async def run(events: EventStream) -> None:
        for choice in choices:
            await _replay(choice, serving.limits.vocab_size)
        keep_alive = events if fields.stream else None
        async with generation(serving, choices, name=name, keep_alive=keep_alive) as running:
            if fields.stream:
                chunk = document | {"object": chunk_object}
                await _streamed(running, fields, chunk, events)
            else:
                await _whole(running, document, events)

    return Answer(run, stream=bool(fields.stream))


def make_choices(
    serving: Serving,
    fields: GenerationFields,
    prompt_token_ids: list[int],
    sampling: SamplingParams,
    *,
    arrived: float,
    attempt_id: str,
    reader: Callable[[], Reader],
    grammar: AnswerGrammar | None = None,
) -> list[Choice]:
    """The choices that a request asks for that `arrived` then (monotonic seconds). `attempt_id`
    names the first one to the engine. Raises RequestError."""
    check_resumption(fields, sampling, serving.limits)
    count = fields.n or 1
    serving.check_available(count)
    resumed = fields.resume_token_ids
    return [
        Choice(
            i,
            Request(
                attempt_id if i == 0 else f"{attempt_id}-{i}",
                prompt_token_ids,
                replace(sampling, seed=choice_seed(sampling.seed, i)),
                cache_salt=fields.salt,
                priority=fields.priority or 0,
                fairness_key=fields.fairness_key or "",
                deadline=fields.deadline(arrived),
                grammar=grammar.copy() if grammar is not None and i > 0 else grammar,
                output_token_ids=list(resumed or []),
            ),
            reader(),
            resumed_tokens=None if resumed is None else len(resumed),
        )
        for i in range(count)
    ]


async def _streamed(
    running: Generation, fields: GenerationFields, chunk: dict[str, Any], events: EventStream
) -> None:
    async for entry in _entries(running, with_token_ids=bool(fields.return_token_ids)):
        await events.event({**chunk, "choices": [entry], "usage": running.usage()})
    if fields.include_usage:
        await events.event({**chunk, "choices": [], "usage": running.usage()})
    await events.done()


async def _whole(running: Generation, document: dict[str, Any], events: EventStream) -> None:
    async for _ in _entries(running, with_token_ids=False):
        pass
    choices = [{**choice.reader.whole(), "index": choice.index} for choice in running.choices]
    await events.document({**document, "choices": choices, "usage": running.usage()})


async def _entries(running: Generation, *, with_token_ids: bool) -> AsyncIterator[Entry]:
    """All choices, piece by piece as they come; each one's last piece has its finish reason, and a
    piece of its own."""

    def told(choice: Choice, entry: Entry) -> Entry:
        ids = {"token_ids": choice.take_token_ids()} if with_token_ids else {}
        return {**entry, "index": choice.index, **ids}

    for choice in running.choices:
        if choice.finish_reason is not None:  # resumed at its very end
            await running.end_record()
            yield told(choice, choice.reader.finish(choice.finish_reason))
    while running.unfinished:
        choice, progress = await running.next()
        if (entry := _start(choice, progress)) is not None:
            yield told(choice, entry)
        fresh = running.count(choice, progress)
        reader = choice.reader
        # A stop token ends the answer and is counted, but is no part of its text.
        if progress.token is not None and progress.finish_reason is not FinishReason.STOP:
            entry = reader.push(progress.token)
            if entry is None and with_token_ids:
                entry = reader.silence()
            if entry is not None and fresh:
                yield told(choice, entry)
        reason = FinishReason.STOP if reader.stopped else progress.finish_reason
        if reason is not None:
            running.finish(choice, reason)
            await running.end_record()
            yield told(choice, reader.finish(reason))


def _start(choice: Choice, progress: Progress) -> Entry | None:
    """What precedes the first token: by now the prompt is computed, and owed for."""
    choice.prompt_logprobs += progress.prompt_logprobs
    if choice.started or (progress.token is None and progress.finish_reason is None):
        return None
    choice.started = True
    return choice.reader.start(choice.prompt_logprobs)


async def _replay(choice: Choice, vocab_size: int) -> None:
    """Bring a resumed choice to where its client stands."""
    if len(choice.request.output_token_ids) > INLINE_REPLAY_TOKENS:
        await asyncio.to_thread(choice.replay, vocab_size)
    else:
        choice.replay(vocab_size)
