"""Tokens of the identity provider: whether one is right, and whose. Called by `callers`.

Any provider of OpenID Connect does: its discovery document tells where its keys are. Only the
issuer that the settings name is ever asked or believed. A token's own words choose a key among
the issuer's, never where keys come from. No token is remembered.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt

from controlplane.errors import StartupError, Unavailable
from controlplane.tenants.people import Claims

ALGORITHMS: Final = ["RS256", "ES256"]
# Clocks differ.
LEEWAY_SECONDS: Final = 30
KEYS_KEPT_SECONDS: Final = 600.0
# An unknown key may be a new one; whoever makes up key ids does not make us ask more often.
LEAST_BETWEEN_SECONDS: Final = 10.0
TIMEOUT_SECONDS: Final = 5.0
_MAX_TOKEN_CHARS = 16_384
_MAX_NAME_CHARS = 200
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger(__name__)


class Verifier:
    """Verifies tokens of one issuer for one client. Its keys are fetched when first needed."""

    def __init__(self, issuer: str, client_id: str) -> None:
        """
        Raises:
            StartupError: the issuer is not an https address (http is for this machine alone), or no
                client is named.
        """
        _check_address(issuer)
        if not client_id:
            raise StartupError("FLASHPLANE_OIDC_CLIENT_ID is empty: set what tokens are for.")
        self._issuer = issuer
        self._client_id = client_id
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")
        self._fetched_at = float("-inf")
        self._lock = threading.Lock()

    def claims(self, token: str) -> Claims | None:
        """Return what a token says of its person; None unless every word of it is right.

        Raises:
            Unavailable: the provider's keys are not known and cannot be had.
        """
        if len(token) > _MAX_TOKEN_CHARS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(str(header.get("kid", "")))
            if header.get("alg") not in ALGORITHMS or key is None:
                return None
            said = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._client_id,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "sub", "aud"]},
            )
        except jwt.PyJWTError:
            return None
        return self._read(said)

    def _read(self, said: dict[str, Any]) -> Claims | None:
        # Told who asked for the token, believe only our own client; with more audiences than us
        # it must be told (OpenID Connect Core 3.1.3.7).
        several = isinstance(said["aud"], list) and len(said["aud"]) > 1
        if said.get("azp", None if several else self._client_id) != self._client_id:
            return None
        subject, email = said["sub"], said.get("email")
        if not subject or "\x00" in subject:
            return None
        is_ours = isinstance(email, str) and said.get("email_verified") is True
        name = said.get("name")
        shown = name if isinstance(name, str) and name else subject
        shown = "".join(letter for letter in shown if letter.isprintable())[:_MAX_NAME_CHARS]
        return Claims(self._issuer, subject, email if is_ours else None, shown)

    def _key(self, kid: str) -> jwt.PyJWK | None:
        with self._lock:
            now = time.monotonic()
            is_old = now - self._fetched_at > KEYS_KEPT_SECONDS
            if (is_old or kid not in self._keys) and now - self._asked_at > LEAST_BETWEEN_SECONDS:
                self._asked_at = now
                self._fetch()
            if not self._keys:
                raise Unavailable(
                    "The identity provider cannot be reached.",
                    code="identity_provider_unavailable",
                    retry_after_seconds=int(LEAST_BETWEEN_SECONDS),
                )
            return self._keys.get(kid)

    def _fetch(self) -> None:
        """Replace the keys; those there are stay when the provider does not answer."""
        try:
            with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as http:
                place = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
                found = http.get(place).raise_for_status().json()
                if found["issuer"] != self._issuer:
                    raise ValueError("the provider calls itself something else")
                _check_address(found["jwks_uri"])
                listed = http.get(found["jwks_uri"]).raise_for_status().json()["keys"]
                usable = [it for it in listed if it.get("use", "sig") == "sig" and it.get("kid")]
                self._keys = {it["kid"]: jwt.PyJWK(it) for it in usable if _is_ours(it)}
                self._fetched_at = time.monotonic()
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("identity_provider_failed", extra={"reason": type(error).__name__})
        except (jwt.PyJWTError, StartupError) as error:
            _log.warning("identity_provider_failed", extra={"reason": type(error).__name__})


def _is_ours(key: dict[str, Any]) -> bool:
    """Whether a published key is for one of our algorithms; a provider has others, too."""
    if key.get("alg") is not None:
        return key["alg"] in ALGORITHMS
    return key.get("kty") == "RSA" or (key.get("kty") == "EC" and key.get("crv") == "P-256")


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    is_here = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or is_here):
        raise StartupError(
            f"The identity provider's address {address!r} must be an https one (FLASHPLANE_"
            "OIDC_ISSUER)."
        )
