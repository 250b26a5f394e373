"""Scheduler, cache, runner and client together, on the real tiny model."""

import asyncio

import pytest
from support.running_engine import ENGINE, RunningEngine

from worker.errors import Unavailable
from worker.request import FinishReason, Request, SamplingParams

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)
LONG = SamplingParams(max_tokens=3000, temperature=0.0)
PROMPT = [(i * 7919) % 100_000 + 10 for i in range(700)]


async def test_requests_share_forwards(engine: RunningEngine) -> None:
    before = engine.runner.forward_count
    await asyncio.gather(*(engine.generate(f"r{i}", [5, 6, 7 + i], GREEDY) for i in range(8)))
    # Eight requests of six tokens: six forwards when all arrive before the first step.
    assert engine.runner.forward_count - before <= 8


async def test_repeated_prompt_hits_and_gives_the_same(engine: RunningEngine) -> None:
    first = await engine.generate("a", PROMPT, GREEDY, salt=b"x")
    second = await engine.generate("b", PROMPT, GREEDY, salt=b"x")
    assert (first.cache_hit_tokens, second.cache_hit_tokens) == (0, 512)
    assert second.output_token_ids == first.output_token_ids


async def test_another_salt_misses(engine: RunningEngine) -> None:
    first = await engine.generate("a", PROMPT, GREEDY, salt=b"x")
    other = await engine.generate("b", PROMPT, GREEDY, salt=b"y")
    assert other.cache_hit_tokens == 0
    assert other.output_token_ids == first.output_token_ids


async def test_conversation_hits_what_was_generated(engine: RunningEngine) -> None:
    sampling = SamplingParams(max_tokens=100, temperature=0.0)
    first = await engine.generate("a", PROMPT, sampling)
    turn = [*PROMPT, *first.output_token_ids, 11, 12, 13]
    second = await engine.generate("b", turn, GREEDY)
    assert second.cache_hit_tokens == 768
    fresh = await engine.generate("c", turn, GREEDY, salt=b"fresh")
    assert second.output_token_ids == fresh.output_token_ids


async def test_sampling_is_independent_of_neighbours(engine: RunningEngine) -> None:
    def sampling(seed: int) -> SamplingParams:
        return SamplingParams(max_tokens=12, temperature=1.0, top_p=0.9, seed=seed)

    alone = [
        await engine.generate(f"a{i}", PROMPT[i : i + 20 + i], sampling(i), salt=b"alone")
        for i in range(6)
    ]
    crowd = await asyncio.gather(
        *(
            engine.generate(f"c{i}", PROMPT[i : i + 20 + i], sampling(i), salt=b"crowd")
            for i in range(6)
        )
    )
    assert [r.output_token_ids for r in crowd] == [r.output_token_ids for r in alone]


async def test_prompt_logprobs_do_not_depend_on_the_cache(engine: RunningEngine) -> None:
    scoring = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=2)
    await engine.generate("warm", PROMPT, GREEDY)
    request = Request("scored", PROMPT, scoring)
    scored = [t for p in await engine.progress(request) for t in p.prompt_logprobs]
    assert [t.token_id for t in scored] == PROMPT[1:]
    assert all(len(t.top) == 2 and t.logprob <= 0 for t in scored)
    assert request.cache_hit_tokens == 0


async def test_stop_token_ends_the_generation(engine: RunningEngine) -> None:
    free = await engine.generate("a", PROMPT[:9], GREEDY)
    stop = free.output_token_ids[2]
    sampling = SamplingParams(max_tokens=6, temperature=0.0, stop_token_ids=frozenset({stop}))
    stopped = await engine.generate("b", PROMPT[:9], sampling)
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.output_token_ids == free.output_token_ids[:3]


async def test_leaving_the_block_aborts(engine: RunningEngine) -> None:
    request = Request("a", PROMPT[:50], LONG)
    with engine.client.generate(request) as progress:
        await progress.get()
    after = Request("b", [5], GREEDY)
    await engine.progress(after)  # the abort was queued before this request
    assert request.finish_reason is FinishReason.ABORTED
    assert engine.client.running == 0


async def test_too_many_requests_are_refused(engine: RunningEngine) -> None:
    async def hold(i: int, release: asyncio.Event) -> None:
        with engine.client.generate(Request(f"h{i}", PROMPT[:5], LONG)):
            await release.wait()

    release = asyncio.Event()
    holders = [asyncio.create_task(hold(i, release)) for i in range(ENGINE.max_sequences + 4)]
    await asyncio.sleep(0)  # every holder has submitted
    with pytest.raises(Unavailable) as caught:
        await engine.generate("one more", PROMPT[:5], GREEDY)
    release.set()
    await asyncio.gather(*holders)
    assert caught.value.code == "overloaded"


async def test_many_random_aborts_leave_nothing(engine: RunningEngine) -> None:
    async def impatient(i: int) -> None:
        request = Request(f"r{i}", PROMPT[: 30 + 60 * i], LONG, cache_salt=b"%d" % (i % 2))
        with engine.client.generate(request) as progress:
            for _ in range(i % 4):
                await progress.get()

    await asyncio.gather(*(impatient(i) for i in range(10)))
    await engine.generate("last", [5], GREEDY)
