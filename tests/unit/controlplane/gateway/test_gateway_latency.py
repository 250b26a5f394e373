"""The last minute's percentiles."""

import pytest

from controlplane.gateway.latency import (
    RENEWED,
    SLOT_SAMPLES,
    SLOT_SECONDS,
    SLOTS,
    Latencies,
)
from controlplane.registry.gateways import Latency


def test_the_95th_percentile_of_what_was_seen() -> None:
    seen = Latencies()
    for number in range(1, 41):
        ttft, itl = float(number), number / 10
        seen.record("a", 0.0, ttft_ms=ttft, itl_ms=itl, is_error=number == 1)
    assert seen.report(1.0) == {"a": Latency(38.0, 3.8, 40, 1)}


def test_without_a_sample_there_is_no_percentile() -> None:
    seen = Latencies()
    seen.record("a", 0.0, ttft_ms=None, itl_ms=None, is_error=True)
    assert seen.report(0.0) == {"a": Latency(None, None, 1, 1)}


def test_a_minute_later_all_is_forgotten() -> None:
    seen = Latencies()
    for second in range(120):
        seen.record("a", float(second), ttft_ms=1.0, itl_ms=None, is_error=False)
    told = seen.report(119.0)["a"]
    assert told.requests == pytest.approx(SLOTS * SLOT_SECONDS, abs=SLOT_SECONDS)
    assert seen.report(300.0) == {}


def test_many_requests_keep_a_fair_sample() -> None:
    seen = Latencies()
    for number in range(100 * SLOT_SAMPLES):
        seen.record("a", 0.0, ttft_ms=number % 100, itl_ms=None, is_error=False)
    told = seen.report(0.0)["a"]
    assert told.requests == 100 * SLOT_SAMPLES
    assert told.ttft_p95_ms is not None
    assert told.ttft_p95_ms > 70


def test_of_many_replicas_each_has_its_turn() -> None:
    latencies = Latencies()
    names = [f"r{number}" for number in range(3 * RENEWED)]
    for requests in (1, 2):
        for name in names:
            latencies.record(name, 0.0, ttft_ms=1.0, itl_ms=None, is_error=False)
        for _ in range(2):
            assert len(latencies.report(1.0)) <= len(names)
        assert {latencies.report(1.0)[name].requests for name in names} == {requests}
    assert latencies.report(61.0) == {}
