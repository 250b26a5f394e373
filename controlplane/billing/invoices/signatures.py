"""Signatures of payment events: HMAC-SHA256 over the moment and the body. Pure.

The header is `t=<seconds since 1970>,v1=<hex>`, with as many `v1` as there are secrets. Called by
the webhook route; a payment provider's adapter signs with `sign`.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from controlplane.errors import AuthenticationFailed

REPLAY_SECONDS: Final = 300
_LONGEST_HEADER = 2000
_REFUSED = "The signature is missing, wrong or too old."


def sign(secret: bytes, body: bytes, at_seconds: int) -> str:
    """Return the header of a body signed at a moment."""
    return f"t={at_seconds},v1={_code(secret, str(at_seconds), body)}"


def verify(secrets: Sequence[bytes], header: str, body: bytes, *, now_seconds: float) -> None:
    """Return when one of `secrets` signed the body, at most five minutes ago or ahead.

    Raises:
        AuthenticationFailed: in every other case, without telling which.
    """
    moment, codes = "", []
    for part in header[:_LONGEST_HEADER].split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            moment = value
        elif name == "v1":
            codes.append(value.encode())
    genuine = False
    for secret in secrets:
        expected = _code(secret, moment, body).encode()
        for code in codes:
            # Every code is compared, so that time tells nothing.
            genuine |= hmac.compare_digest(expected, code)
    if not genuine or not _recent(moment, now_seconds):
        raise AuthenticationFailed(_REFUSED, code="invalid_signature")


def _code(secret: bytes, moment: str, body: bytes) -> str:
    return hmac.new(secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def _recent(moment: str, now_seconds: float) -> bool:
    return (
        moment.isascii()
        and moment.isdigit()
        and len(moment) <= 12
        and abs(now_seconds - int(moment)) <= REPLAY_SECONDS
    )
