"""Two hundred clients at once, many of whom hang up: the books stay exact."""

import random
from typing import Any

from support.books import violations
from support.polling import until
from support.traffic import storm


async def test_books_are_exact_after_random_disconnects(up: dict[str, Any]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    outcomes = await storm(up, seed=seed, requests=200, max_tokens=12)
    answered = [o for o in outcomes if o.finished]
    left = [o for o in outcomes if not o.finished]
    assert len(answered) > 80, f"seed {seed}: {outcomes}"
    assert len(left) > 20, f"seed {seed}"
    assert not [o for o in outcomes if o.status not in (200, None)], f"seed {seed}"
    try:
        until(lambda: not violations(up["database_url"]), seconds=5, what="exact books")
    except AssertionError:
        raise AssertionError(f"seed {seed}: {violations(up['database_url'])}") from None
