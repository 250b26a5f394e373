"""How much of a request a balance can cover, decided before any of it runs. Pure.

Called by `accounts.holds`. The prompt's length is only guessed here (the worker counts it), so a
prompt guess may shrink: the worker then refuses a longer prompt with the true count and the gateway
holds again, exactly. An output limit the client wrote down is a promise and never shrinks; one it
left out shrinks to what is affordable.
"""

import msgspec

from controlplane.pricing.rating import Price, bound_p


class HoldPlan(msgspec.Struct, frozen=True):
    """What a hold covers: so many prompt tokens, so many output tokens, for so many p$."""

    prompt_tokens: int
    completion_tokens: int
    amount_p: int


def plan(
    price: Price,
    *,
    available_p: int,
    prompt_tokens: int,
    max_tokens: int,
    shrinkable: bool,
    exact_prompt: bool = False,
) -> HoldPlan | None:
    """Return what to hold, or None when `available_p` covers not even the least.

    Output goes first: what the prompt guess loses, a second hold with the true count gives back.

    Args:
        price: the version in force at admission.
        available_p: what the account may still spend.
        prompt_tokens: the guess, or the true count when `exact_prompt`.
        max_tokens: the most output tokens wanted.
        shrinkable: the client left `max_tokens` out.
        exact_prompt: `prompt_tokens` is the worker's count and must be covered whole.
    """
    assert prompt_tokens >= 1
    assert max_tokens >= 1
    least_prompt = prompt_tokens if exact_prompt else 1
    least_completion = 1 if shrinkable else max_tokens
    spare_p = available_p - bound_p(
        price, prompt_tokens=least_prompt, completion_tokens=least_completion
    )
    if spare_p < 0:
        return None
    more_completion = _affordable(max_tokens - least_completion, price.output_rate_p, spare_p)
    spare_p -= more_completion * price.output_rate_p
    more_prompt = _affordable(prompt_tokens - least_prompt, price.miss_rate_p, spare_p)
    prompt, completion = least_prompt + more_prompt, least_completion + more_completion
    return HoldPlan(
        prompt_tokens=prompt,
        completion_tokens=completion,
        amount_p=bound_p(price, prompt_tokens=prompt, completion_tokens=completion),
    )


def _affordable(wanted: int, rate_p: int, budget_p: int) -> int:
    return wanted if rate_p == 0 else min(wanted, budget_p // rate_p)
