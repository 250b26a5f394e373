"""Standard Webhooks' signatures, version 1 (standardwebhooks.com). Called by `delivery`. Pure."""

import base64
import hmac
import secrets
from datetime import datetime

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> tuple[bytes, str]:
    """Return a secret, and how it is shown: `whsec_` and base64."""
    secret = secrets.token_bytes(_SECRET_BYTES)
    return secret, _PREFIX + base64.b64encode(secret).decode()


def signed_headers(secret: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that prove a message: HMAC-SHA256 over id, seconds and body."""
    seconds = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), seconds.encode(), body))
    signature = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{signature}",
    }
