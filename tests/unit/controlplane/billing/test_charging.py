"""Bills: the reported usage, never beyond what was set aside."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.charging import NOTHING, Cover, bill
from controlplane.pricing.rating import Price, bound_p
from controlplane.usage.records import TokenUsage

PRICE = Price(uuid.UUID(int=0), "m", "serverless", 1, 10, 100)
OPEN = Cover(prompt_tokens=50, completion_tokens=20, is_open=True)
tokens = st.integers(0, 10**6)


def test_an_honest_usage_is_billed_as_it_is() -> None:
    usage = TokenUsage(hit_tokens=30, miss_tokens=20, output_tokens=7, reasoning_tokens=3)
    found = bill(usage, PRICE, OPEN, available_p=0)
    assert (found.usage, found.discrepancy) == (usage, None)
    assert found.charge_p == 30 * 1 + 20 * 10 + 7 * 100


def test_nothing_used_is_nothing_billed() -> None:
    found = bill(NOTHING, PRICE, OPEN, available_p=0)
    assert (found.charge_p, found.lines, found.discrepancy) == (0, [], None)


def test_what_goes_beyond_the_hold_is_not_billed() -> None:
    found = bill(TokenUsage(30, 40, 25, 25), PRICE, OPEN, available_p=10**9)
    assert found.usage == TokenUsage(30, 20, 20, 20)
    assert found.discrepancy == "beyond_hold"


def test_without_a_hold_nothing_is_billed() -> None:
    found = bill(TokenUsage(1, 1, 1, 0), PRICE, None, available_p=10**9)
    assert (found.usage, found.discrepancy) == (NOTHING, "no_hold")


def test_a_late_bill_is_paid_from_what_is_free() -> None:
    late = Cover(50, 20, is_open=False)
    found = bill(TokenUsage(miss_tokens=5), PRICE, late, available_p=50)
    assert (found.charge_p, found.discrepancy) == (50, None)


def test_a_late_bill_nobody_can_pay_is_waived() -> None:
    late = Cover(50, 20, is_open=False)
    found = bill(TokenUsage(miss_tokens=5), PRICE, late, available_p=49)
    assert (found.charge_p, found.usage, found.discrepancy) == (0, NOTHING, "late")


@given(
    usage=st.builds(TokenUsage, tokens, tokens, tokens, tokens),
    cover=st.builds(Cover, tokens, tokens, st.just(True)),
)
def test_no_usage_costs_more_than_its_hold(usage: TokenUsage, cover: Cover) -> None:
    found = bill(usage, PRICE, cover, available_p=0)
    held = bound_p(
        PRICE, prompt_tokens=cover.prompt_tokens, completion_tokens=cover.completion_tokens
    )
    assert 0 <= found.charge_p <= held
    assert found.usage.reasoning_tokens <= found.usage.output_tokens
