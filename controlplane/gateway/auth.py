"""API keys at the gateway's door: a token to who is calling. Called by `serving` and `catalog`.

Which keys were used is written down a minute later at most, off the requests' way.
"""

import asyncio
import hashlib
import logging
import time
import uuid

from sqlalchemy.orm import Session

from controlplane.errors import AuthenticationFailed, Unavailable
from controlplane.gateway.database import Database
from controlplane.tenants import keys
from controlplane.tenants.keys import Principal
from controlplane.tenants.models import ApiKey

# A revoked key must die within a second, so nothing is believed for longer.
TTL_SECONDS = 1.0
MAX_CACHED = 10_000
USES_TOLD_SECONDS = 30.0

_log = logging.getLogger(__name__)


def bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the token of the `Authorization: Bearer` header.

    Raises:
        AuthenticationFailed: no such header, or more than one.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) == 1:
        scheme, _, token = values[0].decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    raise _refusal()


def _refusal() -> AuthenticationFailed:
    return AuthenticationFailed("The API key is missing, unknown or revoked.")


class Authenticator:
    """Proves tokens against the database and remembers live ones for a second, by full hash."""

    def __init__(self, database: Database, pepper: bytes, previous: bytes = b"") -> None:
        self._database = database
        self._pepper = pepper
        self._previous = previous
        self._cache: dict[bytes, tuple[Principal, float]] = {}
        self._misses: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._used: set[uuid.UUID] = set()

    async def run(self) -> None:
        """Write down now and then which keys were used, until cancelled."""
        while True:
            await asyncio.sleep(USES_TOLD_SECONDS)
            await self.tell_uses()

    async def tell_uses(self) -> None:
        """Write down which keys were used since the last time."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await self._database.run(keys.note_use, ApiKey, used)
        except Unavailable as error:
            self._used |= used
            _log.warning("uses_not_told", extra={"reason": error.message})

    def _authenticate(self, session: Session, token: str) -> Principal | None:
        return keys.authenticate(session, self._pepper, token, previous=self._previous)

    async def principal(self, token: str) -> Principal:
        """Return who holds `token`.

        Raises:
            AuthenticationFailed: nobody.
            Unavailable: the database is down and the token not remembered.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cached = self._cache.get(digest)
        if cached is not None and time.monotonic() < cached[1]:
            return cached[0]
        parsed = keys.parse(token)
        if parsed is None or parsed.kind != "dsf":
            raise _refusal()
        # Requests that miss at the same moment share one look-up.
        if digest not in self._misses:
            task = asyncio.create_task(self._look_up(digest, token))
            self._misses[digest] = task
            task.add_done_callback(lambda _: self._misses.pop(digest))
        principal = await asyncio.shield(self._misses[digest])
        if principal is None:
            raise _refusal()
        return principal

    async def _look_up(self, digest: bytes, token: str) -> Principal | None:
        # Believed from before the question was asked: the answer may be as old as that.
        believed_until = time.monotonic() + TTL_SECONDS
        principal = await self._database.run_in_time(self._authenticate, token)
        if principal is None:
            self._cache.pop(digest, None)
        else:
            self._used.add(principal.api_key_id)
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[digest] = (principal, believed_until)
        return principal
