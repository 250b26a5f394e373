"""Folding records into a trace: monotone, whatever the order."""

import random
import uuid

from hypothesis import given
from hypothesis import strategies as st
from support.shop import final, progress

from controlplane.usage.records import Opened, TokenUsage
from controlplane.usage.traces import Trace

REQUEST_ID = uuid.UUID(int=1)
OPENED = Opened(
    REQUEST_ID,
    uuid.UUID(int=2),
    uuid.UUID(int=3),
    "m",
    "serverless",
    True,
    True,
    uuid.UUID(int=4),
    5,
)
tokens = st.integers(-(2**40), 2**40)
usages = st.builds(TokenUsage, tokens, tokens, tokens, tokens)


def test_a_fresh_trace_used_nothing() -> None:
    trace = Trace(OPENED)
    assert trace.usage == TokenUsage()
    assert trace.finish_reason is None


def test_usage_never_falls() -> None:
    trace = Trace(OPENED)
    trace.apply(progress(REQUEST_ID, TokenUsage(10, 20, 5, 3)))
    trace.apply(progress(REQUEST_ID, TokenUsage(10, 20, 4, 2)))
    assert trace.usage == TokenUsage(10, 20, 5, 3)


def test_a_cache_told_of_late_makes_misses_hits() -> None:
    trace = Trace(OPENED)
    trace.apply(progress(REQUEST_ID, TokenUsage(0, 100, 5)))
    trace.apply(progress(REQUEST_ID, TokenUsage(80, 20, 6)))
    trace.apply(progress(REQUEST_ID, TokenUsage(0, 100, 6)))
    assert trace.usage == TokenUsage(80, 20, 6)


def test_an_end_without_a_replica_keeps_the_one_that_worked() -> None:
    trace = Trace(OPENED)
    trace.apply(progress(REQUEST_ID, TokenUsage(output_tokens=1)))
    trace.apply(final(REQUEST_ID, TokenUsage()))
    assert (trace.replica, trace.finish_reason) == ("replica-1", "stop")
    assert trace.usage.output_tokens == 1


@given(st.lists(usages, max_size=8), st.randoms())
def test_order_and_repetition_do_not_matter(seen: list[TokenUsage], order: random.Random) -> None:
    records = [progress(REQUEST_ID, usage) for usage in seen]
    straight, shuffled = Trace(OPENED), Trace(OPENED)
    for record in records:
        straight.apply(record)
    again = records * 2
    order.shuffle(again)
    for record in again:
        shuffled.apply(record)
    assert straight.usage == shuffled.usage
    assert straight.usage.miss_tokens >= 0
    assert 0 <= straight.usage.reasoning_tokens <= straight.usage.output_tokens < 2**31
