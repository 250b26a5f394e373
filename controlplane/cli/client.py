"""The admin REST API as the command line speaks it."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from controlplane.errors import StartupError
from controlplane.settings import Settings
from controlplane.supervisor.announcement import read_announcement
from controlplane.supervisor.layout import Layout

TIMEOUT_SECONDS = 30.0
PAGE = 200


class AdminClient:
    """One connection to the admin API.

    Raises, from every method:
        StartupError: it cannot be reached, or it refused; the message says what to do.
    """

    def __init__(self, settings: Settings) -> None:
        running = read_announcement(Layout(settings.data_dir.absolute()).up_file)
        url = settings.admin_url or (running.admin_url if running else "")
        key = settings.admin_key.get_secret_value() or (running.admin_key if running else "")
        if not url or not key:
            raise StartupError(
                "No admin API is known: run `flashplane up`, or set FLASHPLANE_ADMIN_URL and "
                "FLASHPLANE_ADMIN_KEY."
            )
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> "AdminClient":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def stream(self, path: str, params: dict[str, str]) -> Iterator[bytes]:
        """Yield an answer that may be long, piece by piece."""
        try:
            with self._http.stream("GET", f"/admin/v1{path}", params=params) as answer:
                if not answer.is_success:
                    answer.read()
                    raise StartupError(_reason(answer))
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._silent(error) from None

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Return the decoded answer of one request, None when it has no content."""
        answer = self._ask(method, path, **arguments)
        return answer.json() if answer.content else None

    def download(self, path: str) -> bytes:
        """Return the file that a GET answers with."""
        return self._ask("GET", path).content

    def pages(self, path: str, params: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
        """Return at most `limit` items of a listing, following its cursor."""
        cursor = None
        while limit > 0:
            query = {**params, "limit": min(limit, PAGE), **({"after": cursor} if cursor else {})}
            page = self.call("GET", path, params=query)
            yield from page["data"]
            limit -= len(page["data"])
            cursor = page["next"]
            if cursor is None:
                return

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"/admin/v1{path}", **arguments)
        except httpx.TransportError as error:
            raise self._silent(error) from None
        if answer.is_success:
            return answer
        raise StartupError(_reason(answer))

    def tenant_id(self, name_or_id: str) -> str:
        """Return the id of a tenant given by name or by id."""
        try:
            return str(uuid.UUID(name_or_id))
        except ValueError:
            pass
        for tenant in self.pages("/tenants", {}, limit=10**9):
            if tenant["name"] == name_or_id:
                return str(tenant["id"])
        raise StartupError(
            f"There is no tenant {name_or_id!r}: see `flashplane tenants list`, or make it with "
            f"`flashplane tenants create {name_or_id}`."
        )

    def _silent(self, error: httpx.TransportError) -> StartupError:
        return StartupError(
            f"The admin API at {self._http.base_url} does not answer "
            f"({type(error).__name__}): see `flashplane status`."
        )


def _reason(answer: httpx.Response) -> str:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The admin API answered {answer.status_code}."
    if answer.status_code == 401:
        return f"{message} Check FLASHPLANE_ADMIN_KEY."
    return message
