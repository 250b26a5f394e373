"""What hub and bucket share: HTTP requests whose failures are told apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from worker.errors import WeightsError
from worker.weights.source import Interrupted

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
MOST_CONNECTIONS = 32


def client() -> httpx.Client:
    """Return a client for many parallel downloads; credentials do not follow to other hosts."""
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS)
    return httpx.Client(timeout=TIMEOUT, limits=limits, follow_redirects=True)


def ask(client: httpx.Client, url: str, headers: dict[str, str]) -> httpx.Response:
    """Return a small answer.

    Raises:
        WeightsError: refused. Interrupted: no answer, or one to ask for again.
    """
    try:
        response = client.get(url, headers=headers)
    except httpx.TransportError as error:
        raise Interrupted(f"{url}: {type(error).__name__}") from error
    check(response)
    return response


@contextmanager
def stream(
    client: httpx.Client, url: str, headers: dict[str, str], offset: int
) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Read from `offset` on, or from 0 where the server knows no ranges.

    Raises:
        WeightsError: refused. Interrupted: no answer, or it broke off.
    """
    ranges = {"Range": f"bytes={offset}-"} if offset else {}
    # Compressed bytes have other offsets than the file's.
    plain = {"Accept-Encoding": "identity"}
    try:
        with client.stream("GET", url, headers={**plain, **headers, **ranges}) as response:
            check(response)
            begins_at = offset if response.status_code == 206 else 0
            # As they come: what waits in a buffer is lost when the connection breaks.
            yield begins_at, response.iter_raw()
    except httpx.TransportError as error:
        raise Interrupted(f"{url}: {type(error).__name__}") from error


def check(response: httpx.Response) -> None:
    """Raise what an answer's status means, unless it is a success."""
    status = response.status_code
    url = response.url.copy_with(query=None)  # a signature is in there
    if status in (401, 403):
        raise WeightsError(f"{url} answers {status}: these weights need a key, or another one")
    if status == 404:
        raise WeightsError(f"{url} answers 404: there is no such thing")
    if status == 412:
        raise WeightsError(f"{url} has changed while it was fetched")
    if status in (408, 416, 429) or status >= 500:
        raise Interrupted(f"{url} answers {status}")
    if status >= 300:
        raise WeightsError(f"{url} answers {status}")
