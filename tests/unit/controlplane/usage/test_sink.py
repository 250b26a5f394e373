"""Staging: idempotent, and no engine's odd words stop it."""

from sqlalchemy import select
from support.shop import Shop, final

from controlplane.db import uuid7
from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage
from controlplane.usage.traces import Trace


def test_staging_twice_queues_once(shop: Shop) -> None:
    customer = shop.customer()
    trace = shop.trace(customer, uuid7(), TokenUsage(1, 2, 3, 0))
    assert shop.stage(trace) == 1
    assert shop.stage(trace) == 0


def test_what_is_settled_is_not_queued_again(shop: Shop) -> None:
    customer = shop.customer(10**12)
    trace = shop.trace(customer, shop.hold(customer), TokenUsage(1, 2, 3, 0))
    shop.stage(trace)
    shop.settle()
    assert shop.stage(trace) == 0


def test_times_are_exact_to_the_microsecond(shop: Shop) -> None:
    customer = shop.customer()
    trace = shop.trace(customer, uuid7(), TokenUsage())
    trace.finished_at_us = 1_767_225_600_123_457
    shop.stage(trace)
    with shop.sessions.begin() as session:
        finished_at = session.scalars(select(StagedUsage)).one().finished_at
    assert finished_at is not None
    assert finished_at.isoformat() == "2026-01-01T00:00:00.123457+00:00"


def test_an_engines_odd_words_do_not_stop_the_batch(shop: Shop) -> None:
    customer, request_id = shop.customer(), uuid7()
    trace = Trace(shop.opened(customer, request_id))
    trace.apply(final(request_id, TokenUsage(-5, 2**70, 3, 9), "st\0op" * 100))
    assert shop.stage(trace) == 1
    with shop.sessions.begin() as session:
        staged = session.scalars(select(StagedUsage)).one()
    assert (staged.hit_tokens, staged.reasoning_tokens, len(staged.finish_reason)) == (0, 3, 64)


def test_thousands_are_staged_in_one_call(shop: Shop) -> None:
    customer = shop.customer()
    traces = [shop.trace(customer, uuid7(), TokenUsage()) for _ in range(2_500)]
    assert shop.stage(*traces) == 2_500
