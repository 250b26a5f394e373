"""Prices over REST: bands, overrides, meters, what holds now, what would change; and bad input."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.testclient import TestClient
from support.shop import MODEL, Shop, cost_p

from controlplane.pricing import book
from controlplane.usage.records import TokenUsage

PRICES = "/admin/v1/prices"
CALENDARS = "/admin/v1/price-calendars"
NOBODY = "019b76da-a800-7000-8000-00000000ffff"
FLAT = {
    "model": "m",
    "hit_usd_per_million": "0.01",
    "miss_usd_per_million": "0.1",
    "output_usd_per_million": "0.2",
}
RATES = {name: text for name, text in FLAT.items() if name != "model"}
ALWAYS = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00"}
CALENDAR = {
    "name": "cal",
    "time_zone": "Asia/Shanghai",
    "default_band": "off-peak",
    "windows": [{"band": "peak", "days": ["mon"], "from": "09:00", "to": "12:00"}],
}


def ask(client: TestClient, path: str, body: dict[str, Any], status: int = 201) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def banded(**more: object) -> dict[str, Any]:
    """A price with the bands of CALENDAR, dearer at peak."""
    bands = {"off-peak": RATES, "peak": RATES | {"output_usd_per_million": "0.4"}}
    return {"model": "m", "calendar": "cal", "bands": bands, **more}


def test_a_banded_price_is_shown_with_its_calendar(admin: TestClient) -> None:
    calendar = ask(admin, CALENDARS, CALENDAR)
    made = ask(admin, PRICES, banded())
    assert (made["calendar"], made["calendar_id"]) == ("cal", calendar["id"])
    assert made["bands"]["peak"]["output_usd_per_million"] == "0.40"
    assert made["hit_usd_per_million"] is None
    assert admin.get(f"{CALENDARS}/{calendar['id']}").json()["windows"] == CALENDAR["windows"]
    assert [it["id"] for it in admin.get(CALENDARS).json()["data"]] == [calendar["id"]]


def test_what_holds_at_a_moment_is_told_with_its_reason(admin: TestClient) -> None:
    ask(admin, CALENDARS, CALENDAR)
    ask(admin, PRICES, banded(effective_from="2026-11-01T00:00:00Z"))
    query = {"model": "m", "at": "2026-11-23T03:59:59Z"}
    current = admin.get(f"{PRICES}/current", params=query).json()
    assert (current["band"], current["output_usd_per_million"]) == ("peak", "0.40")
    assert current["next_change"] == "2026-11-23T04:00:00Z"
    assert current["band_explanation"] == (
        "mon 09:00-12:00 (calendar cal; it was 2026-11-23 11:59:59 Asia/Shanghai, mon)"
    )
    assert current["currency"] == "USD"


def test_a_tenants_own_price_comes_before_the_one_for_all_until_it_ends(
    admin: TestClient, shop: Shop, as_tenant: Callable[[str], TestClient]
) -> None:
    customer, other = shop.customer(), shop.customer()
    own = {"model": MODEL, "tenant_id": str(customer.tenant_id)}
    ask(admin, PRICES, FLAT | own)

    def output(token: str) -> tuple[str, bool]:
        (price,) = as_tenant(token).get("/v1/account/prices").json()["data"]
        return price["output_usd_per_million"], price["is_override"]

    assert output(customer.token) == ("0.20", True)
    assert output(other.token) == ("0.28", False)
    assert [it["tenant_id"] for it in admin.get(PRICES, params=own).json()["data"]] == [
        str(customer.tenant_id)
    ]
    assert ask(admin, PRICES, own | {"ends_override": True})["ends_override"] is True
    assert output(customer.token) == ("0.28", False)


def test_a_request_has_a_price_beside_its_tokens(admin: TestClient) -> None:
    made = ask(admin, PRICES, FLAT | {"request_usd": "0.000000000001"})
    assert made["request_usd"] == "0.000000000001"


WRONG_PRICES: list[tuple[dict[str, Any], int]] = [
    ({"currency": "EUR"}, 422),
    ({"hit_usd_per_million": "0.2"}, 422),  # dearer than a miss
    ({"hit_usd_per_million": "0.0000001"}, 422),  # finer than a picodollar
    ({"output_usd_per_million": "10000.1"}, 422),
    ({"output_usd_per_million": "-1"}, 422),
    ({"output_usd_per_million": 0.2}, 422),
    ({"output_usd_per_million": None}, 422),
    ({"request_usd": "100.01"}, 422),
    ({"bands": {"standard": RATES}}, 422),  # both kinds
    ({"ends_override": True}, 422),
    ({"path": "elsewhere"}, 422),
    ({"tenant_id": NOBODY}, 404),
    ({"effective_from": "2026-01-01"}, 422),
]


def test_a_price_that_makes_no_sense_is_refused(admin: TestClient) -> None:
    for wrong, status in WRONG_PRICES:
        assert "message" in ask(admin, PRICES, FLAT | wrong, status)["error"], wrong


WRONG_BANDS: list[tuple[dict[str, Any], int]] = [
    ({"bands": {"peak": RATES}}, 422),
    ({"bands": {"peak": RATES, "off-peak": RATES, "night": RATES}}, 422),
    ({"bands": {}}, 422),
    ({"calendar": "unknown"}, 404),
    ({"calendar": None}, 422),
    ({"calendar": None, "calendar_id": NOBODY}, 404),
    ({"calendar_id": NOBODY}, 422),  # two calendars
]


def test_bands_are_exactly_the_calendars(admin: TestClient) -> None:
    ask(admin, CALENDARS, CALENDAR)
    for wrong, status in WRONG_BANDS:
        assert "message" in ask(admin, PRICES, banded(**wrong), status)["error"], wrong


WRONG_CALENDARS: list[dict[str, Any]] = [
    {"time_zone": "Mars/Olympus"},
    {"time_zone": "../../etc/passwd"},
    {"time_zone": "Asia"},
    {"windows": [{"band": "peak", "days": ["mon"], "from": "09:00", "to": "09:00"}]},
    {"windows": [{"band": "peak", "days": ["someday"], "from": "09:00", "to": "10:00"}]},
    {"windows": [{"band": "peak", "days": ["mon"], "from": "24:00", "to": "10:00"}]},
    {"windows": [{"band": "No Name", "days": ["mon"], "from": "09:00", "to": "10:00"}]},
    {"holidays": ["2026-02-30"]},
    {"holidays": ["2026-10-01"]},  # and how far does the list reach?
    {"holidays": ["2026-10-01"], "holidays_known_until": "2026-09-30"},
]


def test_a_calendar_that_makes_no_sense_is_refused(admin: TestClient) -> None:
    for wrong in WRONG_CALENDARS:
        assert "message" in ask(admin, CALENDARS, CALENDAR | wrong, 422)["error"], wrong


def test_a_second_price_cannot_begin_in_the_past(admin: TestClient) -> None:
    past = {"effective_from": "2026-01-01T00:00:00Z"}
    ask(admin, PRICES, FLAT | past)
    error = ask(admin, PRICES, FLAT | {"effective_from": "2026-02-01T00:00:00Z"}, 422)["error"]
    assert error["param"] == "effective_from"
    ask(admin, PRICES, FLAT | past, 409)


def test_what_is_not_there_cannot_end(admin: TestClient, shop: Shop) -> None:
    own = {"model": "m", "tenant_id": str(shop.customer().tenant_id), "ends_override": True}
    ask(admin, PRICES, own, 422)
    ask(admin, PRICES, {"model": "m", "ends_override": True}, 422)


def test_a_model_without_a_price_has_none_now(admin: TestClient) -> None:
    answer = admin.get(f"{PRICES}/current", params={"model": "nope"})
    assert answer.status_code == 404


def test_a_preview_says_what_past_traffic_would_have_cost(admin: TestClient, shop: Shop) -> None:
    usages = {
        shop.customer(10**12): TokenUsage(10, 20, 5, 0),
        shop.customer(10**12): TokenUsage(1, 2, 3, 0),
    }
    for customer, usage in usages.items():
        shop.stage(shop.trace(customer, shop.hold(customer), usage))
    shop.settle()
    now = datetime.now(UTC)
    span = {"since": f"{now - timedelta(hours=1)}", "until": f"{now + timedelta(hours=1)}"}
    price = FLAT | {"model": MODEL, "request_usd": "0.01"}
    found = ask(admin, f"{PRICES}/preview", {"price": price, "top": 1, **span}, 200)
    new_p = {
        customer: usage.hit_tokens * 10_000
        + usage.miss_tokens * 100_000
        + usage.output_tokens * 200_000
        + 10**10
        for customer, usage in usages.items()
    }
    old_p = sum(map(cost_p, usages.values()))
    assert found["requests"] == 2
    assert (found["old_p"], found["new_p"]) == (str(old_p), str(sum(new_p.values())))
    assert found["difference_p"] == str(sum(new_p.values()) - old_p)
    (band,) = found["bands"]
    assert (band["old_band"], band["new_band"], band["requests"]) == ("standard", "standard", 2)
    most = max(usages, key=lambda it: abs(new_p[it] - cost_p(usages[it])))
    (tenant,) = found["tenants"]
    assert (tenant["tenant_id"], tenant["new_p"]) == (str(most.tenant_id), str(new_p[most]))
    assert found["tenants_affected"] == 2
    assert admin.get(PRICES, params={"model": MODEL}).json()["data"][-1]["request_usd"] == "0.00"


def test_a_preview_for_all_leaves_out_who_had_a_price_of_their_own(
    admin: TestClient, shop: Shop
) -> None:
    special, plain = shop.customer(10**12), shop.customer(10**12)
    ask(admin, PRICES, FLAT | {"model": MODEL, "tenant_id": str(special.tenant_id)})
    with shop.sessions.begin() as session:
        found = book.current(session)
    general = shop.price
    for customer in (special, plain):
        now = datetime.now(UTC)
        shop.price = found.price(MODEL, "serverless", now, customer.tenant_id)
        shop.stage(shop.trace(customer, shop.hold(customer), TokenUsage(1, 1, 1, 0)))
    shop.price = general
    shop.settle()
    span = {"since": f"{now - timedelta(hours=1)}", "until": f"{now + timedelta(hours=1)}"}
    price = FLAT | {"model": MODEL}
    told = ask(admin, f"{PRICES}/preview", {"price": price, **span}, 200)
    assert [it["tenant_id"] for it in told["tenants"]] == [str(plain.tenant_id)]
    price["tenant_id"] = str(special.tenant_id)
    told = ask(admin, f"{PRICES}/preview", {"price": price, **span}, 200)
    assert [it["tenant_id"] for it in told["tenants"]] == [str(special.tenant_id)]
    assert told["difference_p"] == "0"


WRONG_PREVIEWS: list[dict[str, Any]] = [
    {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    {"since": "2026-01-01T00:00:00Z", "until": "2026-09-01T00:00:00Z"},
    {"top": 0},
    {"price": FLAT | {"hit_usd_per_million": "1"}},
]


def test_a_preview_that_makes_no_sense_is_refused(admin: TestClient) -> None:
    for wrong in WRONG_PREVIEWS:
        ask(admin, f"{PRICES}/preview", {"price": FLAT} | wrong, 422)


def test_a_receipt_prints_version_band_and_reason(
    admin: TestClient, shop: Shop, as_tenant: Callable[[str], TestClient]
) -> None:
    always = [ALWAYS | {"band": "peak"}]
    ask(admin, CALENDARS, CALENDAR | {"windows": always})
    made = ask(admin, PRICES, banded(model=MODEL, bands={
        "off-peak": RATES, "peak": RATES | {"request_usd": "0.5"},
    }))  # fmt: skip
    with shop.sessions.begin() as session:
        shop.price = book.current(session).price(MODEL, "serverless", datetime.now(UTC))
    customer = shop.customer(10**12)
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, TokenUsage(0, 3, 0, 0)))
    shop.settle()
    receipt = as_tenant(customer.token).get(f"/v1/account/usage/{request_id}").json()
    assert (receipt["price_version_id"], receipt["band"]) == (made["id"], "peak")
    assert receipt["calendar_id"] == made["calendar_id"]
    assert receipt["band_explanation"].startswith("peak: every weekday 00:00-24:00 (calendar cal;")
    assert receipt["charge_p"] == str(3 * 100_000 + 5 * 10**11)
    words = sorted(line["explanation"] for line in receipt["lines"])
    assert words == [
        "1 request x 0.50 USD",
        "3 cache-miss input tokens x 0.10 USD per million = 0.0000003 USD",
    ]
    assert {line["rate_usd_per_request"] for line in receipt["lines"]} == {None, "0.50"}
    assert shop.books().violations == []


def test_a_page_of_prices_goes_on_where_the_last_one_ended(admin: TestClient) -> None:
    made = [ask(admin, PRICES, FLAT | {"model": f"m{n}"})["id"] for n in range(3)]
    first = admin.get(PRICES, params={"limit": 3}).json()
    rest = admin.get(PRICES, params={"limit": 3, "after": first["next"]}).json()
    assert [it["id"] for it in first["data"] + rest["data"]][-3:] == made
    assert admin.get(PRICES, params={"after": str(uuid.UUID(NOBODY))}).json()["data"] == []
