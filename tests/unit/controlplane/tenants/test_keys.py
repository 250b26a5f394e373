"""Keys: the token's format, who it proves, and when it proves nobody any more."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker
from support.shop import PEPPER, Shop

from controlplane.errors import NotFound
from controlplane.tenants import keys, tenants


@pytest.fixture
def token(shop: Shop) -> str:
    return shop.customer().token


def test_a_fresh_token_is_well_formed(token: str) -> None:
    parsed = keys.parse(token)
    assert parsed is not None
    assert parsed.kind == "dsf"
    assert token.startswith(f"dsf_{parsed.public_id}_")


def test_any_single_wrong_character_is_refused_without_the_database(token: str) -> None:
    for position in range(len(token)):
        wrong = "x" if token[position] != "x" else "y"
        assert keys.parse(token[:position] + wrong + token[position + 1 :]) is None


@given(st.text())
def test_no_text_makes_the_parser_raise(text: str) -> None:
    assert keys.parse(text) is None


def test_a_key_proves_its_tenant(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        principal = keys.authenticate(session, PEPPER, customer.token)
    assert principal == keys.Principal(
        customer.tenant_id, customer.project_id, customer.api_key_id, frozenset(keys.ALL_SCOPES)
    )


def test_a_well_formed_but_unknown_key_is_nobody(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        customer_id = tenants.listing(session, after=None, limit=1)
        assert customer_id == []
    customer = shop.customer()
    with shop.sessions() as session:  # never committed: the key does not exist outside
        _, foreign = keys.issue(session, PEPPER, tenant_id=customer.tenant_id, name="gone")
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, foreign) is None


def test_another_pepper_opens_nothing(shop: Shop, token: str) -> None:
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, b"another", token) is None


def test_the_token_is_not_stored(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        (key,) = keys.listing(session, tenant_id=customer.tenant_id)
        assert customer.token.split("_")[2].encode() not in key.digest


def test_a_revoked_key_is_nobody(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        keys.revoke(session, key_id=customer.api_key_id)
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, customer.token) is None


def test_revoking_twice_keeps_the_first_moment(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        first = keys.revoke(session, key_id=customer.api_key_id).revoked_at
    with shop.sessions.begin() as session:
        assert keys.revoke(session, key_id=customer.api_key_id).revoked_at == first


def test_a_suspended_tenants_key_is_nobody(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        tenants.set_status(session, tenant_id=customer.tenant_id, status="suspended")
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, PEPPER, customer.token) is None


def test_a_tenant_cannot_revoke_anothers_key(shop: Shop) -> None:
    owner, other = shop.customer(), shop.customer()
    with shop.sessions.begin() as session, pytest.raises(NotFound):
        keys.revoke(session, key_id=owner.api_key_id, tenant_id=other.tenant_id)


def test_no_key_for_an_unknown_tenant(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session, pytest.raises(NotFound):
        keys.issue(session, PEPPER, tenant_id=uuid.uuid4(), name="x")


def test_admin_and_tenant_keys_do_not_open_each_others_doors(shop: Shop, token: str) -> None:
    with shop.sessions.begin() as session:
        admin, admin_token = keys.issue_admin(session, PEPPER, name="root")
        found = keys.authenticate_admin(session, PEPPER, admin_token)
        assert found is not None
        assert found.id == admin.id
        assert keys.authenticate(session, PEPPER, admin_token) is None
        assert keys.authenticate_admin(session, PEPPER, token) is None
