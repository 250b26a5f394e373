"""Redaction: secrets of every kind are dropped, what an auditor needs is kept."""

import base64
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shop import PEPPER, Shop

from controlplane.audit.redaction import REDACTED, redact
from controlplane.tenants import keys

KEPT = {
    "tenant_id": str(uuid.UUID(int=1)),
    "name": "Acme GmbH & Co. KG (new)",
    "amount_usd": "12345.670000000001",
    "amount_p": "12345670000000001",
    "effective_from": "2026-11-22T15:00:00.123456+00:00",
    "model": "deepseek-v4-flash",
    "configuration": "h200-x4",
    "route": "/admin/v1/tenants/00000000-0000-0000-0000-000000000001/top-ups",
    "reason": "Refund for the outage of 2026-11-20, ticket 4711.",
    "once": "budget:00000000-0000-0000-0000-000000000001:2026-11:80",
    "replicas": 3,
    "spot": False,
    "note": None,
}


def test_what_an_auditor_needs_is_kept() -> None:
    assert redact(KEPT) == KEPT


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "secret", "client_secret", "access_token", "Password", "authorization",
     "digest", "cookie", "private_key", "sealed_secret"],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_dropped(name: str) -> None:
    assert redact({name: "short"}) == {name: REDACTED}
    assert redact({"a": [{name: ["short"]}]}) == {"a": [{name: REDACTED}]}


@pytest.mark.parametrize("name", ["key_id", "api_key_id", "max_tokens", "public_id"])
def test_numbers_and_ids_beside_secrets_are_kept(name: str) -> None:
    value = 7 if "tokens" in name else str(uuid.UUID(int=7))
    assert redact({name: value}) == {name: value}


@given(st.binary(min_size=24, max_size=64), st.sampled_from(["hex", "b64", "url"]))
def test_random_secrets_under_innocent_names_are_dropped(drawn: bytes, spelled: str) -> None:
    hypothesis_drew_a_constant = len(set(drawn)) < 12
    if hypothesis_drew_a_constant:
        return
    secret = {
        "hex": drawn.hex(),
        "b64": base64.b64encode(drawn).decode(),
        "url": base64.urlsafe_b64encode(drawn).decode(),
    }[spelled]
    assert secret not in json.dumps(redact({"name": secret, "note": f"use {secret} now"}))


def test_our_own_tokens_are_dropped_wherever_they_stand(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        admin = keys.issue_admin(session, PEPPER, name="root")[1]
    for token in (shop.customer().token, admin):
        shown = json.dumps(redact({"name": f"my key is {token}!", token: 1}))
        assert token not in shown
        assert token.split("_")[2] not in shown


def test_of_an_address_only_the_server_is_kept() -> None:
    told = redact({"url": "https://user:pw@hooks.example.com:8443/T0/B1/x?sig=abc"})
    assert told == {"url": "https://hooks.example.com:8443"}


def test_what_is_endless_is_cut() -> None:
    told = json.dumps(
        redact({"a": "word " * 10_000, "b": list(range(10_000)), "c": [[[[[[[1]]]]]]]})
    )
    assert len(told) < 2_000
