"""An admin's command line against a served admin API."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import SecretStr
from support.polling import until
from support.shop import PEPPER, Customer, Shop
from typer.testing import CliRunner, Result

from controlplane.api.app import create_admin_app
from controlplane.cli.commands import app
from controlplane.settings import Settings
from controlplane.tenants import keys


class Command:
    """The command line of an admin."""

    def __init__(self, url: str, key: str, customer: Customer, folder: Path) -> None:
        self.tenant = str(customer.tenant_id)
        self._environment = {
            "FLASHPLANE_ADMIN_URL": url,
            "FLASHPLANE_ADMIN_KEY": key,
            "FLASHPLANE_DATA_DIR": str(folder),
        }

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self._environment)

    def ask(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)


@contextmanager
def commanding(shop: Shop, database_url: str, folder: Path) -> Iterator[Command]:
    """Serve a shop's admin API to a command line."""
    with shop.sessions.begin() as session:
        key = keys.issue_admin(session, PEPPER, name="root")[1]
    settings = Settings(DATABASE_URL=database_url, key_pepper=SecretStr(PEPPER.decode()))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_admin_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started, seconds=10, what="the admin API")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield Command(url, key, shop.customer(10**15), folder)
    server.should_exit = True
    thread.join()
    listener.close()
