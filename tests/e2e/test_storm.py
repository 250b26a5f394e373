"""Two hundred clients at once, many of whom hang up: the books stay exact."""

import random
from typing import Any

import httpx
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
    report = reconciled(up, requests=len(answered))
    assert report["ok"], (seed, report)
    assert report["billed"] == report["charged"], (seed, report)
    # Nobody pays for what was not made; clients who left not for what they were not sent.
    assert report["billed"]["output_tokens"] <= report["witnessed"]["output_tokens"], seed


def reconciled(up: dict[str, Any], *, requests: int) -> dict[str, Any]:
    """What reconciliation says once it has judged so many requests, and waits for none."""
    headers = {"authorization": f"Bearer {up['admin_key']}"}
    report: dict[str, Any] = {}

    def is_done() -> bool:
        report.update(httpx.get(f"{up['admin_url']}/admin/v1/reconcile", headers=headers).json())
        return bool(report["requests"] >= requests and not report["waiting"])

    until(is_done, seconds=20, what="bills and journals to be held against each other")
    return report
