"""Sends one webhook: to a public address alone, within a deadline, reading next to nothing.

The name is resolved once; the connection goes to the address that was looked at, while TLS and the
Host header keep the name. Redirects are answers like others: never followed. Called by `delivery`.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import httpx

from controlplane.webhooks.addresses import choose

DEADLINE_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: an HTTP status, or why there is none. Never what was answered."""

    status: int | None
    error: str | None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Return a name's addresses.

    Raises:
        OSError: it has none, or nobody answers.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


async def send(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tls: ssl.SSLContext,
    allow_loopback: bool,
    resolve: Resolve = resolve_by_system,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Outcome:
    """POST `body`; whatever goes wrong is an outcome."""
    try:
        async with asyncio.timeout(deadline_seconds):
            return await _send(httpx.URL(url), headers, body, tls, resolve, allow_loopback)
    except TimeoutError:
        return Outcome(None, f"no answer within {deadline_seconds:g} s")
    except (OSError, UnicodeError):
        return Outcome(None, "the name does not resolve")
    except httpx.HTTPError as error:
        return Outcome(None, f"the connection failed: {type(error).__name__}")


async def _send(
    url: httpx.URL,
    headers: Mapping[str, str],
    body: bytes,
    tls: ssl.SSLContext,
    resolve: Resolve,
    allow_loopback: bool,
) -> Outcome:
    port = url.port or (443 if url.scheme == "https" else 80)
    resolved = await _resolved(url.host, port, resolve)
    address = choose(resolved, allow_loopback=allow_loopback)
    if address is None:
        return Outcome(None, "the name leads to an address that is not public")
    sent = {**headers, "host": url.netloc.decode(), "accept-encoding": "identity"}
    async with (
        httpx.AsyncClient(
            verify=tls, trust_env=False, follow_redirects=False, timeout=None
        ) as client,
        client.stream(
            "POST",
            url.copy_with(host=address),
            headers=sent,
            content=body,
            extensions={"sni_hostname": url.host},
        ) as answer,
    ):
        read = 0
        async for part in answer.aiter_raw():
            read += len(part)
            if read > MAX_ANSWER_BYTES:
                break
        return Outcome(answer.status_code, None)


async def _resolved(host: str, port: int, resolve: Resolve) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        return await resolve(host, port)
