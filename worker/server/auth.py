"""Who may ask an engine: whoever holds its key. Put around the routes by `app`.

Probes and scrapers hold none, and learn nothing of anybody's prompts: `/health` and `/metrics` are
open, as at vLLM and SGLang. Everything else, unknown routes too, asks for the key first.
"""

import hmac
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from worker.errors import ConfigError, InvalidKey
from worker.server.answer import error_response

OPEN_PATHS = frozenset({"/health", "/metrics"})


class RequireKey:
    """An ASGI app that passes on what comes with `Authorization: Bearer <key>`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        assert key
        self._app = app
        self._expected = b"bearer " + key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._knows(scope):
            await error_response(InvalidKey())(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, space, key = given[0].partition(b" ")
        # In a time that tells nothing of how much of it is right.
        return hmac.compare_digest(scheme.lower() + space + key, self._expected)


def read_key(key: str, file: Path | None) -> str:
    """Return the key that requests must show, from the first line of `file` or as given; "" for
    none.

    Raises:
        ConfigError: both are given, the file is empty or unreadable, or the key is no header value.
    """
    if file is not None:
        if key:
            raise ConfigError("give --api-key or --api-key-file, not both")
        try:
            key = file.read_text().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {file}: {error}") from None
        if not key:
            raise ConfigError(f"{file} is empty; it must hold the key that requests show")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("an API key must be printable ASCII without spaces")
    return key
