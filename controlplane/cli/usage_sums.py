"""A tenant's usage of some days, added up by day, model or key. Called by `flashplane usage`."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from controlplane.cli.client import AdminClient
from controlplane.money import p_to_usd

MOST_DAYS: Final = 31  # of one page
DAY_SECONDS: Final = 86_400
SUM_COLUMNS: Final = (
    *("of", "requests", "input_tokens", "input_cached_tokens", "output_tokens", "cost_usd"),
)
_SUMMED: Final = {
    "requests": "num_model_requests",
    "input_tokens": "input_tokens",
    "input_cached_tokens": "input_cached_tokens",
    "output_tokens": "output_tokens",
    "cost_p": "cost_p",
}


class By(StrEnum):
    """What usage is added up by."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"


_FIELD: Final = {By.DAY: None, By.MODEL: "model", By.KEY: "api_key_id"}


def summed(client: AdminClient, tenant_id: str, by: By, days: int) -> list[dict[str, Any]]:
    """Return a row for each day, oldest first, or each model or key that was used, dearest first.

    Args:
        days: of UTC, today included.
    """
    today = int(time.time()) // DAY_SECONDS * DAY_SECONDS
    query: dict[str, Any] = {"start_time": today - (days - 1) * DAY_SECONDS, "limit": days}
    field = _FIELD[by]
    if field is not None:
        query["group_by"] = field
    path = f"/tenants/{tenant_id}/organization/usage/completions"
    buckets = client.call("GET", path, params=query)["data"]
    if field is None:
        return [_row(_day(it["start_time"]), it["results"]) for it in buckets]
    results = [result for bucket in buckets for result in bucket["results"]]
    # A dict, to keep each name once and in the order of the answer.
    names = dict.fromkeys(result[field] for result in results)
    rows = [_row(name, [it for it in results if it[field] == name]) for name in names]
    return sorted(rows, key=lambda row: -int(row["cost_p"]))


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _row(of: str | None, results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found = list(results)
    row: dict[str, Any] = {
        name: sum(int(it[told]) for it in found) for name, told in _SUMMED.items()
    }
    cost_p = row["cost_p"]
    return {"of": of, **row, "cost_p": str(cost_p), "cost_usd": p_to_usd(cost_p)}
