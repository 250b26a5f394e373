"""What is wrong with a bill, given what engines wrote down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.reconcile.verdict import Attempt, verdict, witnessed
from controlplane.usage.records import TokenUsage

counts = st.integers(0, 1000)
usages = st.builds(TokenUsage, counts, counts, counts, st.just(0))
MADE = TokenUsage(10, 20, 30, 5)


@pytest.mark.parametrize(
    ("billed", "finish_reason", "attempts", "expected"),
    [
        (MADE, "stop", [Attempt(MADE)], None),
        (TokenUsage(10, 20, 7, 5), "aborted", [Attempt(MADE)], None),
        (TokenUsage(10, 20, 7, 5), "lost", [Attempt(MADE)], None),
        (TokenUsage(10, 20, 7, 5), "stop", [Attempt(MADE)], "underbilled"),
        (TokenUsage(0, 0, 30, 5), "length", [Attempt(MADE)], "underbilled"),
        (TokenUsage(10, 20, 31, 5), "stop", [Attempt(MADE)], "overbilled"),
        (TokenUsage(10, 21, 30, 5), "stop", [Attempt(MADE)], "overbilled"),
        (TokenUsage(9, 21, 30, 5), "aborted", [Attempt(MADE)], "overbilled"),
        (None, None, [Attempt(MADE)], "unbilled"),
        (None, None, [Attempt(TokenUsage())], None),
        (MADE, "stop", [], "unwitnessed"),
        (TokenUsage(), "error", [], None),
    ],
)
def test_each_difference_has_its_name(
    billed: TokenUsage | None, finish_reason: str, attempts: list[Attempt], expected: str | None
) -> None:
    assert verdict(billed, finish_reason, attempts) == expected


def test_an_answer_that_moved_is_billed_once_as_its_longest_attempt_tells() -> None:
    broke_off = Attempt(TokenUsage(0, 30, 12, 0))
    went_on = Attempt(TokenUsage(16, 14, 40, 0))
    assert verdict(TokenUsage(0, 30, 40, 0), "stop", [broke_off, went_on]) is None
    assert verdict(TokenUsage(0, 30, 52, 0), "stop", [broke_off, went_on]) == "overbilled"


def test_who_took_over_from_an_unheard_engine_says_nothing_of_that_ones_cache() -> None:
    went_on = Attempt(TokenUsage(16, 14, 40, 0), took_over=True)
    assert verdict(TokenUsage(0, 30, 40, 0), "stop", [went_on]) is None
    assert verdict(TokenUsage(0, 31, 40, 0), "stop", [went_on]) == "overbilled"
    assert verdict(TokenUsage(0, 30, 41, 0), "stop", [went_on]) == "overbilled"
    began = Attempt(TokenUsage(8, 22, 12, 0))
    assert verdict(TokenUsage(0, 30, 40, 0), "stop", [began, went_on]) == "overbilled"


def test_a_dead_engine_may_have_made_more_than_it_wrote_down() -> None:
    last_written = Attempt(TokenUsage(0, 30, 12, 0), is_exact=False)
    assert verdict(TokenUsage(0, 30, 19, 0), "error", [last_written]) is None


@given(usages, st.lists(usages, max_size=3))
def test_a_whole_answer_agrees_only_with_the_same_tokens(
    billed: TokenUsage, told: list[TokenUsage]
) -> None:
    attempts = [Attempt(it) for it in told]
    seen = witnessed(attempts)
    if told and verdict(billed, "stop", attempts) is None:
        assert billed.output_tokens == seen.output_tokens
        prompts = [it.hit_tokens + it.miss_tokens for it in told]
        assert billed.hit_tokens + billed.miss_tokens in range(
            seen.hit_tokens + seen.miss_tokens, max(prompts) + 1
        )
    assert verdict(seen, "stop", attempts) in (None, "unwitnessed")
