"""Ticks of GPU time: any schedule has the same sum, and only proven time counts."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.gpu.ticks import LONGEST_TICK_MS, Life, extended, tick
from controlplane.pricing.rating import gpu_time_p

rates = st.integers(0, 10**16)
lives_ms = st.integers(1, 10**11)


@given(rates, st.lists(lives_ms, min_size=1, max_size=30))
def test_any_schedule_of_ticks_sums_to_the_whole(rate_p: int, stops_ms: list[int]) -> None:
    total_ms, charged_p, billed_ms = max(stops_ms), 0, 0
    for proven_ms in sorted(stops_ms):
        while billed_ms < proven_ms:
            ticked = tick(rate_p, billed_ms=billed_ms, proven_ms=proven_ms, available_p=10**30)
            assert ticked.to_ms - ticked.from_ms <= LONGEST_TICK_MS
            billed_ms = ticked.to_ms
            charged_p += ticked.charge_p
            assert ticked.waived_p == 0
    assert charged_p == rate_p * total_ms // 3_600_000


@given(rates, lives_ms, st.integers(0, 10**18))
def test_an_account_pays_what_it_has_and_the_rest_is_waived(
    rate_p: int, proven_ms: int, available_p: int
) -> None:
    ticked = tick(rate_p, billed_ms=0, proven_ms=proven_ms, available_p=available_p)
    assert ticked.charge_p <= available_p
    assert ticked.charge_p + ticked.waived_p == gpu_time_p(rate_p, ticked.to_ms)
    assert ticked.waived_p == 0 or ticked.charge_p == available_p


@given(rates)
def test_a_tick_fits_into_one_ledger_entry(rate_p: int) -> None:
    ticked = tick(rate_p, billed_ms=0, proven_ms=10**11, available_p=10**30)
    assert ticked.charge_p < 2**63


moments = st.integers(0, 10_000)


# An empty one proves nothing, and moves nothing.
proven_spans = st.tuples(moments, moments).map(sorted).filter(lambda span: span[0] < span[1])


@given(st.lists(proven_spans, min_size=1, max_size=20))
def test_a_millisecond_counts_once_and_only_if_proven(proofs: list[list[int]]) -> None:
    proofs.sort(key=lambda proof: proof[1])
    life = Life(0, proofs[0][0])
    for since_ms, until_ms in proofs:
        again = extended(life, since_ms, until_ms)
        assert extended(again, since_ms, until_ms) == again
        life = again
    covered = {ms for since_ms, until_ms in proofs for ms in range(since_ms, until_ms)}
    assert life.proven_ms <= len(covered)
    assert life.until_ms == max(until_ms for _, until_ms in proofs)


@given(moments, st.lists(moments, min_size=1))
def test_an_unbroken_life_is_proven_whole_however_few_proofs_arrive(
    since_ms: int, published_ms: list[int]
) -> None:
    until_ms = [since_ms + it for it in sorted(published_ms)]
    life = Life(0, since_ms)
    for it in until_ms:
        life = extended(life, since_ms, it)
    assert life.proven_ms == until_ms[-1] - since_ms
