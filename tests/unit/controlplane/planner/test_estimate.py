"""How long a start takes, from bytes and bandwidth or from what was measured."""

import pytest
from support.configurations import configuration

from controlplane.crd.engine import ClaimSource, EngineSpec, HubSource, WeightsSpec
from controlplane.planner.estimate import estimate_start, start_limit_seconds
from controlplane.planner.launch import plan_launch

WHERE = configuration("H200", 8, read_bytes_per_second=6e9)
LAUNCH = plan_launch(EngineSpec(), WHERE)
CLAIM = WeightsSpec(pvc=ClaimSource(claim="w"))
HUB = WeightsSpec(hub=HubSource(repo="deepseek-ai/DeepSeek-V4-Flash"))


def test_reading_160_gb_at_6_gb_a_second_takes_27_seconds_and_at_ten_gigabits_128() -> None:
    near, far = (estimate_start(LAUNCH, WHERE, it) for it in (CLAIM, HUB))
    assert near.loading_seconds - 90 == pytest.approx(26.6, abs=0.1)
    assert near.fetching_seconds == 0
    assert far.fetching_seconds == pytest.approx(127.7, abs=0.1)


def test_a_claim_with_a_digest_is_read_twice() -> None:
    pinned = WeightsSpec(pvc=ClaimSource(claim="w"), digest="sha256:" + "0" * 64)
    assert estimate_start(LAUNCH, WHERE, pinned).fetching_seconds == pytest.approx(26.6, abs=0.1)


def test_what_was_measured_takes_the_formulas_place() -> None:
    measured = {"Fetching": 0.5, "Loading": 33.0}
    estimate = estimate_start(LAUNCH, WHERE, HUB, measured_seconds=measured)
    assert (estimate.fetching_seconds, estimate.loading_seconds) == (0.5, 33.0)
    assert estimate.seconds == pytest.approx(0.5 + 33 + 10 + 5)


def test_loading_may_take_a_multiple_of_what_its_size_explains() -> None:
    estimate = estimate_start(LAUNCH, WHERE, CLAIM)
    assert start_limit_seconds(LAUNCH, WHERE) == pytest.approx(3 * estimate.loading_seconds)
