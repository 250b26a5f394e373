"""What a balance can cover: what shrinks, what never does."""

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.accounts.bounds import plan
from controlplane.pricing.rating import Price, bound_p

PRICE = Price(uuid.UUID(int=0), "m", "serverless", 1, 10, 20)

prices = st.builds(
    Price,
    version_id=st.just(uuid.UUID(int=0)),
    model=st.just("m"),
    path=st.just("serverless"),
    hit_rate_p=st.just(0),
    miss_rate_p=st.integers(0, 10**6),
    output_rate_p=st.integers(0, 10**6),
    request_rate_p=st.integers(0, 10**9),
)


def test_all_of_it_when_the_money_is_there() -> None:
    found = plan(PRICE, available_p=1_200, prompt_tokens=100, max_tokens=10, shrinkable=False)
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.amount_p) == (100, 10, 1_200)


def test_a_prompt_guess_shrinks_to_what_is_affordable() -> None:
    found = plan(PRICE, available_p=1_195, prompt_tokens=100, max_tokens=10, shrinkable=False)
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens) == (99, 10)


def test_a_counted_prompt_never_shrinks() -> None:
    assert (
        plan(
            PRICE,
            available_p=1_195,
            prompt_tokens=100,
            max_tokens=10,
            shrinkable=False,
            exact_prompt=True,
        )
        is None
    )


def test_an_omitted_limit_shrinks_to_what_a_counted_prompt_leaves() -> None:
    found = plan(
        PRICE,
        available_p=1_195,
        prompt_tokens=100,
        max_tokens=10,
        shrinkable=True,
        exact_prompt=True,
    )
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.amount_p) == (100, 9, 1_180)


def test_a_written_limit_never_shrinks() -> None:
    assert plan(PRICE, available_p=209, prompt_tokens=1, max_tokens=10, shrinkable=False) is None


def test_what_a_request_costs_beside_its_tokens_is_covered_first() -> None:
    price = replace(PRICE, request_rate_p=1_000)
    terms = {"prompt_tokens": 100, "max_tokens": 10}
    assert plan(price, available_p=1_029, shrinkable=True, **terms) is None
    found = plan(price, available_p=1_030, shrinkable=True, **terms)
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.amount_p) == (1, 1, 1_030)


@given(
    price=prices,
    available_p=st.integers(-(10**9), 10**12),
    prompt_tokens=st.integers(1, 10**6),
    max_tokens=st.integers(1, 10**6),
    shrinkable=st.booleans(),
    exact_prompt=st.booleans(),
)
def test_a_plan_is_affordable_and_keeps_its_promises(
    price: Price,
    available_p: int,
    prompt_tokens: int,
    max_tokens: int,
    shrinkable: bool,
    exact_prompt: bool,
) -> None:
    found = plan(
        price,
        available_p=available_p,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        shrinkable=shrinkable,
        exact_prompt=exact_prompt,
    )
    least = bound_p(
        price,
        prompt_tokens=prompt_tokens if exact_prompt else 1,
        completion_tokens=1 if shrinkable else max_tokens,
    )
    assert (found is None) == (least > available_p)
    if found is None:
        return
    assert found.amount_p <= available_p
    assert 1 <= found.prompt_tokens <= prompt_tokens
    assert 1 <= found.completion_tokens <= max_tokens
    assert shrinkable or found.completion_tokens == max_tokens
    assert not exact_prompt or found.prompt_tokens == prompt_tokens
    assert found.amount_p == bound_p(
        price, prompt_tokens=found.prompt_tokens, completion_tokens=found.completion_tokens
    )
