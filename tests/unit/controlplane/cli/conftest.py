"""A command line of an admin whose API is served on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command, commanding
from support.orders import stock
from support.shop import Shop


@pytest.fixture
def command(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Command]:
    with shop.sessions.begin() as session:
        stock(session)
    with commanding(shop, database_url, tmp_path) as command:
        yield command
