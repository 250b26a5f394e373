"""Tokens of a real issuer on this machine: which are believed, and how often it is asked."""

import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from support.issuer import CLIENT, Issuer, running_issuer

from controlplane.api.contract import oidc
from controlplane.api.contract.oidc import Verifier
from controlplane.errors import StartupError, Unavailable
from controlplane.tenants.people import Claims


@pytest.fixture(scope="module")
def shared_issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(shared_issuer: Issuer) -> Issuer:
    shared_issuer.fails, shared_issuer.asked = False, 0
    shared_issuer.calls_itself = shared_issuer.address
    return shared_issuer


@pytest.fixture
def verifier(issuer: Issuer) -> Verifier:
    return Verifier(issuer.address, CLIENT)


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1"])
def test_a_right_token_tells_its_person(issuer: Issuer, verifier: Verifier, kid: str) -> None:
    assert verifier.claims(issuer.token(kid=kid)) == Claims(
        issuer.address, "ada", "ada@example.com", "Ada"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"iat": None},
        {"nbf": int(time.time()) + 3600},
        {"azp": "another"},
        {"aud": [CLIENT, "another"]},
        {"sub": ""},
    ],
    ids=lambda wrong: "-".join(f"{name} {type(it).__name__}" for name, it in wrong.items()),
)
def test_a_token_with_one_wrong_word_is_nobodys(
    issuer: Issuer, verifier: Verifier, wrong: dict[str, Any]
) -> None:
    assert verifier.claims(issuer.token(**wrong)) is None


def test_with_several_audiences_our_client_must_have_asked(
    issuer: Issuer, verifier: Verifier
) -> None:
    assert verifier.claims(issuer.token(aud=[CLIENT, "another"], azp=CLIENT)) is not None


@pytest.mark.parametrize("verified", [None, False, "true"])
def test_an_address_that_is_not_verified_is_not_told(
    issuer: Issuer, verifier: Verifier, verified: object
) -> None:
    claims = verifier.claims(issuer.token(email_verified=verified))
    assert claims is not None
    assert claims.email is None


def test_a_token_without_a_signature_or_with_a_shared_secret_is_nobodys(
    issuer: Issuer, verifier: Verifier
) -> None:
    bare = jwt.encode(issuer.claims(), None, "none", headers={"kid": "rsa-1"})
    secret = "a secret that is long enough for this"
    shared = jwt.encode(issuer.claims(), secret, "HS256", headers={"kid": "rsa-1"})
    assert verifier.claims(bare) is None
    assert verifier.claims(shared) is None


def test_an_altered_token_is_nobodys(issuer: Issuer, verifier: Verifier) -> None:
    head, _, signature = issuer.token().split(".")
    payload = issuer.token("eve").split(".")[1]
    assert verifier.claims(f"{head}.{payload}.{signature}") is None


@pytest.mark.parametrize("text", ["", "a.b.c", "..", "\x00", "é.é.é", "x" * 20_000])
def test_no_text_makes_the_verifier_raise(verifier: Verifier, text: str) -> None:
    assert verifier.claims(text) is None


def test_made_up_key_ids_do_not_make_us_ask_again_and_again(
    issuer: Issuer, verifier: Verifier
) -> None:
    for number in range(20):
        token = jwt.encode(issuer.claims(), "x" * 32, "HS256", headers={"kid": f"k{number}"})
        assert verifier.claims(token) is None
    assert issuer.asked == 1


def test_a_new_key_of_the_issuer_is_found(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verifier.claims(issuer.token()) is not None
    issuer.take_key("ec-2")
    assert verifier.claims(issuer.token(kid="ec-2")) is None  # asked a moment ago
    monkeypatch.setattr(oidc, "LEAST_BETWEEN_SECONDS", 0.0)
    assert verifier.claims(issuer.token(kid="ec-2")) is not None


def test_a_key_that_the_issuer_withdrew_is_forgotten(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.take_key("ec-3")
    token = issuer.token(kid="ec-3")
    assert verifier.claims(token) is not None
    issuer.withdraw_key("ec-3")
    monkeypatch.setattr(oidc, "LEAST_BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(oidc, "KEYS_KEPT_SECONDS", 0.0)
    assert verifier.claims(token) is None


def test_an_issuer_that_is_down_stops_only_those_whose_keys_are_unknown(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "LEAST_BETWEEN_SECONDS", 0.0)
    issuer.fails = True
    with pytest.raises(Unavailable):
        verifier.claims(issuer.token())
    issuer.fails = False
    assert verifier.claims(issuer.token()) is not None
    issuer.fails = True
    monkeypatch.setattr(oidc, "KEYS_KEPT_SECONDS", 0.0)
    assert verifier.claims(issuer.token()) is not None


def test_an_issuer_that_calls_itself_something_else_is_not_believed(
    issuer: Issuer, verifier: Verifier
) -> None:
    issuer.calls_itself = "https://elsewhere.example"
    with pytest.raises(Unavailable):
        verifier.claims(issuer.token())


@pytest.mark.parametrize("address", ["http://idp.example", "ftp://127.0.0.1", "idp", "https://"])
def test_an_issuer_that_anybody_could_pose_as_stops_the_start(address: str) -> None:
    with pytest.raises(StartupError, match="OIDC_ISSUER"):
        Verifier(address, CLIENT)
