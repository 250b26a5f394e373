"""Seals small secrets that must be readable again, so that a copy of the database does not tell
them. Called by what keeps such secrets: webhooks' endpoints.

AES-256-GCM with a key that is derived from the pepper for one purpose.
"""

import hmac
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


def seal(pepper: bytes, purpose: str, secret: bytes) -> bytes:
    """Return `secret` as only `unseal` with the same pepper and purpose opens it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _cipher(pepper, purpose).encrypt(nonce, secret, purpose.encode())


def unseal(peppers: Sequence[bytes], purpose: str, sealed: bytes) -> bytes | None:
    """Return the secret, None when none of the peppers opens it."""
    nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    for pepper in peppers:
        try:
            return _cipher(pepper, purpose).decrypt(nonce, box, purpose.encode())
        except InvalidTag:
            continue
    return None


def _cipher(pepper: bytes, purpose: str) -> AESGCM:
    assert pepper, "the pepper is empty"
    return AESGCM(hmac.digest(pepper, b"seal\0" + purpose.encode(), "sha256"))
