"""API keys at the gateway's door: a token to who is calling. Called by `serving` and `catalog`."""

import asyncio
import hashlib
import time

from controlplane.errors import AuthenticationFailed
from controlplane.gateway.database import Database
from controlplane.tenants import keys
from controlplane.tenants.keys import Principal

# A revoked key must die within a second, so nothing is believed for longer.
TTL_SECONDS = 1.0
MAX_CACHED = 10_000


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

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database = database
        self._pepper = pepper
        self._cache: dict[bytes, tuple[Principal, float]] = {}
        self._misses: dict[bytes, asyncio.Task[Principal | None]] = {}

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
        principal = await self._database.run(keys.authenticate, self._pepper, token)
        if principal is None:
            self._cache.pop(digest, None)
        else:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[digest] = (principal, believed_until)
        return principal
