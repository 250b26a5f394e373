"""Signatures of payment events: fresh ones of a known secret open, nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.billing.invoices.signatures import REPLAY_SECONDS, sign, verify
from controlplane.errors import AuthenticationFailed

SECRET, BODY, NOW = b"secret", b'{"id": "evt"}', 1_790_000_000


def is_taken(header: str, body: bytes = BODY, secrets: tuple[bytes, ...] = (SECRET,)) -> bool:
    try:
        verify(secrets, header, body, now_seconds=NOW)
    except AuthenticationFailed:
        return False
    return True


def test_the_header_is_what_any_hmac_makes() -> None:
    # printf '1790000000.{"id": "evt"}' | openssl dgst -sha256 -hmac secret
    code = "0c55dd8d3248dead34b630b45366a4737b81daf6f09596b601529339c46029a7"
    assert sign(SECRET, BODY, NOW) == f"t=1790000000,v1={code}"


@pytest.mark.parametrize("age", [0, REPLAY_SECONDS, -REPLAY_SECONDS])
def test_a_recent_signature_is_taken(age: int) -> None:
    assert is_taken(sign(SECRET, BODY, NOW - age))


@pytest.mark.parametrize("age", [REPLAY_SECONDS + 1, -REPLAY_SECONDS - 1])
def test_an_old_or_future_one_is_not(age: int) -> None:
    assert not is_taken(sign(SECRET, BODY, NOW - age))


def test_either_secret_signs_while_one_is_replaced() -> None:
    header = f"{sign(b'old', BODY, NOW)},v1=0000"
    assert is_taken(header, secrets=(SECRET, b"old"))
    assert not is_taken(header)


def test_without_a_secret_nothing_is_taken() -> None:
    assert not is_taken(sign(b"", BODY, NOW), secrets=())


@given(st.text(max_size=60))
def test_no_other_header_is_taken(header: str) -> None:
    assert not is_taken(header)


@given(st.binary(max_size=40), st.text(max_size=14))
def test_neither_another_body_nor_another_moment_is(body: bytes, moment: str) -> None:
    header = sign(SECRET, BODY, NOW)
    assert is_taken(header, body) == (body == BODY)
    moved = header.replace(f"t={NOW}", f"t={moment}")
    assert not is_taken(moved) or moment == str(NOW)
