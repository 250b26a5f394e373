"""Quotes: the first choice with room, its price, its time, and what to know before."""

import uuid
from dataclasses import replace
from typing import Any

from support.orders import BARE, DEDICATED, H200, H200_SPOT, RATE_P, SMALL

from controlplane.crd.base import Path
from controlplane.deployments import specs
from controlplane.deployments.quote import Market, Offer, Quote, quote, refusals, unpriced
from controlplane.money import P_PER_USD
from controlplane.pricing.rating import Price

PRICE = Price(uuid.uuid4(), "deepseek-v4-flash", "serverless", 2_800, 140_000, 280_000)
RATES = {("h200-x4", "on_demand"): RATE_P, ("h200-x4-spot", "spot"): RATE_P // 2}


def market(**free: int | None) -> Market:
    stock = {"h200-x4": 1, "h200-x4-spot": 1, "rtx-4090": 1} | {
        name.replace("_", "-"): it for name, it in free.items()
    }
    offers = {it.id: Offer(it, stock[it.id]) for it in (H200, H200_SPOT, SMALL)}
    return Market(offers, RATES, PRICE)


def spec(path: Path = Path.DEDICATED, **fields: Any) -> specs.Spec:
    given = DEDICATED | {"weights": {"pvc": {"claim": "w"}}} if path != "bare" else BARE
    return specs.parse(path, given | fields, tenant_id=uuid.uuid4(), by_tenant=True)


def quoted(wanted: specs.Spec, on: Market | None = None, available_p: int = 10**18) -> Quote:
    return quote(wanted, on or market(), available_p=available_p)


def said(told: Quote, words: str) -> bool:
    return any(words in warning for warning in told.warnings)


def test_the_first_choice_with_room_is_taken() -> None:
    both = spec(configurations=["h200-x4-spot", "h200-x4"])
    assert quoted(both).configuration == "h200-x4-spot"
    assert quoted(both, market(h200_x4_spot=0)).configuration == "h200-x4"
    assert quoted(both, market(h200_x4_spot=0, h200_x4=0)).configuration == "h200-x4-spot"
    assert quoted(both, market(h200_x4_spot=None)).configuration == "h200-x4-spot"


def test_a_choice_that_cannot_hold_the_model_is_passed_over() -> None:
    told = quoted(spec(configurations=["rtx-4090", "h200-x4"]))
    assert told.configuration == "h200-x4"
    assert refusals(spec(configurations=["rtx-4090"]), market()).keys() == {"rtx-4090"}
    assert refusals(spec(Path.BARE, configurations=["rtx-4090"]), market()) == {}


def test_spot_has_its_price_and_its_warning() -> None:
    told = quoted(spec(configurations=["h200-x4-spot"]))
    assert (told.rate_p_per_hour, told.spot) == (RATE_P // 2, True)
    assert said(told, "may be taken away")


def test_what_is_not_there_is_said() -> None:
    told = quoted(spec(configurations=["b300-x8"]))
    assert (told.gpus, told.estimated_seconds, told.stock) == (None, None, {"b300-x8": None})
    assert said(told, "b300-x8 is not in the GPU catalogue")
    assert unpriced(spec(configurations=["h200-x4", "b300-x8"]), market()) == "b300-x8"


def test_less_room_than_wanted_is_said() -> None:
    assert said(quoted(spec(replicas=3)), "room for 1 of 3 replicas")
    assert not said(quoted(spec(replicas=3), market(h200_x4=3)), "room for")
    assert not said(quoted(spec(replicas=3), market(h200_x4=None)), "room for")


def test_replicas_follow_from_scaling_and_stopping() -> None:
    assert quoted(spec(replicas=None, scaling={"min": 1, "max": 4})).replicas == (1, 4)
    assert quoted(spec(stopped=True)).replicas == (0, 0)
    assert quoted(spec(Path.BARE)).replicas == (1, 1)


def test_a_balance_that_ends_within_a_day_is_said() -> None:
    assert said(quoted(spec(), available_p=2 * RATE_P), "lasts for 2.0 hours")
    assert not said(quoted(spec(), available_p=24 * RATE_P), "lasts for")


def test_break_even_is_price_over_price() -> None:
    # 20 USD/h x 24 h / (0.1556 USD per million of 8:1 traffic) = 3,086 million tokens a day.
    assert RATE_P == 20 * P_PER_USD
    assert said(quoted(spec()), "above 3,086 million tokens a day")
    assert not said(quoted(spec(Path.BARE)), "tokens a day")


def test_a_volume_is_quoted_by_the_hour_and_counts_in_how_long_the_balance_lasts() -> None:
    priced = replace(market(), storage_p_per_gib_hour={"*": 1000, "fast": 3000})
    volume = {"sizeGiB": 100}
    assert quoted(spec(Path.BARE), priced).storage_p_per_hour is None
    assert quoted(spec(Path.BARE, volume=volume), priced).storage_p_per_hour == 100_000
    fast = spec(Path.BARE, volume=volume | {"storageClass": "fast"})
    assert quoted(fast, priced).storage_p_per_hour == 300_000
    assert quoted(fast, market()).storage_p_per_hour == 0
