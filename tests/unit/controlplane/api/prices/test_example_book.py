"""DeepSeek's own prices of V4-Flash: what holds at each edge of each band."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient
from support.shop import MODEL as SOLD
from support.shop import Shop

from controlplane.pricing import book, examples
from controlplane.pricing.snapshot import PriceBook

MODEL = "deepseek-v4-example"
OLD = (2_800, 140_000, 280_000)
OFF_PEAK = (7_000, 220_000, 660_000)
PEAK = (14_000, 440_000, 1_320_000)
EDGES = {
    # the switch, on a Sunday
    "2026-08-16T16:00:00": (OLD, OFF_PEAK),
    # Monday after it: both windows
    "2026-08-17T01:00:00": (OFF_PEAK, PEAK),
    "2026-08-17T04:00:00": (PEAK, OFF_PEAK),
    "2026-08-17T06:00:00": (OFF_PEAK, PEAK),
    "2026-08-17T10:00:00": (PEAK, OFF_PEAK),
    # Friday, then no weekend
    "2026-08-21T10:00:00": (PEAK, OFF_PEAK),
    "2026-08-22T01:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-08-23T06:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-08-24T01:00:00": (OFF_PEAK, PEAK),
    # Mid-Autumn, a Friday; National Day, Thursday to Wednesday; the days around them
    "2026-09-24T01:00:00": (OFF_PEAK, PEAK),
    "2026-09-25T01:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-09-30T06:00:00": (OFF_PEAK, PEAK),
    "2026-10-01T01:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-10-05T06:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-10-07T06:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-10-08T01:00:00": (OFF_PEAK, PEAK),
    # weekend days that are working days in China
    "2026-09-20T01:00:00": (OFF_PEAK, OFF_PEAK),
    "2026-10-10T06:00:00": (OFF_PEAK, OFF_PEAK),
    # the turn of the year, after which no holiday is known
    "2026-12-31T01:00:00": (OFF_PEAK, PEAK),
    "2027-01-01T01:00:00": (OFF_PEAK, PEAK),
    # a leap day, a Tuesday
    "2028-02-29T10:00:00": (PEAK, OFF_PEAK),
}


SECOND = timedelta(seconds=1)


@pytest.fixture
def document() -> dict[str, Any]:
    """The shipped book as JSON has it, of a model that the shop does not sell already."""
    text = examples.text("deepseek-v4-flash")
    assert text is not None
    return json.loads(
        json.dumps(yaml.safe_load(text.replace("v4-flash", "v4-example")), default=str)
    )


def rates(found: PriceBook, at: datetime) -> tuple[int, int, int]:
    price = found.price(MODEL, "serverless", at)
    return price.hit_rate_p, price.miss_rate_p, price.output_rate_p


def test_every_edge_of_every_band(admin: TestClient, shop: Shop, document: dict[str, Any]) -> None:
    assert admin.post("/admin/v1/prices/import", json=document).status_code == 201
    with shop.sessions.begin() as session:
        found = book.current(session)
    for edge, (before, after) in EDGES.items():
        at = datetime.fromisoformat(edge).replace(tzinfo=UTC)
        told = [rates(found, moment) for moment in (at - SECOND, at, at + SECOND)]
        assert told == [before, after, after], edge


def test_a_book_is_imported_once(admin: TestClient, document: dict[str, Any]) -> None:
    first, again = (admin.post("/admin/v1/prices/import", json=document).json() for _ in range(2))
    assert [it["id"] for it in again["prices"]] == [it["id"] for it in first["prices"]]
    assert [it["id"] for it in again["calendars"]] == [it["id"] for it in first["calendars"]]


def test_a_book_that_says_otherwise_is_refused(admin: TestClient, document: dict[str, Any]) -> None:
    assert admin.post("/admin/v1/prices/import", json=document).status_code == 201
    document["prices"][1]["bands"]["peak"]["output_usd_per_million"] = "9"
    assert admin.post("/admin/v1/prices/import", json=document).status_code == 409


def test_a_history_is_not_slipped_under_prices_that_were_charged(
    admin: TestClient, document: dict[str, Any]
) -> None:
    document = json.loads(json.dumps(document).replace(MODEL, SOLD))
    answer = admin.post("/admin/v1/prices/import", json=document)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "effective_from"


def test_a_list_of_holidays_says_where_it_ends(admin: TestClient, document: dict[str, Any]) -> None:
    admin.post("/admin/v1/prices/import", json=document)
    query = {"model": MODEL, "at": "2027-01-01T01:00:00Z"}
    current = admin.get("/admin/v1/prices/current", params=query).json()
    assert current["band"] == "peak"
    assert current["holidays_note"] == (
        "holidays are known until 2026-12-31: every later day counts as its weekday"
    )
