"""`flashplane prices` against a served admin API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command, commanding
from support.shop import MODEL, Shop

RATES = ("--hit", "0.01", "--miss", "0.1", "--output", "0.2")
CALENDAR = """\
calendars:
  - name: nights
    time_zone: Europe/Berlin
    default_band: day
    windows: [{band: night, days: [mon, tue, wed, thu, fri, sat, sun], from: "22:00", to: "06:00"}]
    holidays: [2026-12-25]
    holidays_known_until: 2026-12-31
prices: []
"""


@pytest.fixture
def command(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Command]:
    with commanding(shop, database_url, tmp_path) as command:
        yield command


def test_a_price_is_published_shown_and_listed(command: Command) -> None:
    published = command.ask("prices", "publish", "m", *RATES, "--request", "0.001")
    assert command.ask("prices", "list", "--model", "m") == [published]
    shown = command.run("prices", "show", "m").output
    assert "standard: hit 0.01, miss 0.10, output 0.20 USD/1M + 0.001 USD/request" in shown


def test_a_tenants_own_price_begins_and_ends(command: Command) -> None:
    own = ("--tenant", command.tenant)
    command.ask("prices", "publish", MODEL, *own, *RATES)
    assert command.ask("prices", "show", MODEL, *own)["is_override"] is True
    command.ask("prices", "publish", MODEL, *own, "--ends")
    assert command.ask("prices", "show", MODEL, *own)["is_override"] is False
    assert "ends the tenant's own price" in command.run("prices", "list").output


def test_a_price_by_the_hour_follows_an_imported_calendar(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "book.yaml"
    file.write_text(CALENDAR)
    command.ask("prices", "import", str(file))
    bands = ("--band", "day=0.01/0.1/0.2", "--band", "night=0.005/0.05/0.1/0.001")
    command.ask("prices", "publish", "m", "--calendar", "nights", *bands)
    at = ("--at", "2027-01-01T22:00:00Z")
    assert command.ask("prices", "show", "m", *at)["band"] == "night"
    assert command.run("prices", "calendars").exit_code == 0


def test_a_preview_publishes_nothing(command: Command) -> None:
    before = command.ask("prices", "list")
    told = command.run("prices", "preview", MODEL, *RATES)
    assert told.exit_code == 0, told.output
    assert "difference_usd" in told.output
    assert command.ask("prices", "list") == before


def test_what_cannot_be_read_is_told_in_a_sentence(command: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("prices: [")
    listed = tmp_path / "list.yaml"
    listed.write_text("- 1")
    for arguments, words in (
        (("import", "nowhere.yaml"), "These ship: deepseek-v4-flash"),
        (("import", str(broken)), "is not YAML"),
        (("import", str(listed)), "needs `calendars` and `prices`"),
        (("publish", "m", "--band", "peak=1"), "write NAME=HIT/MISS/OUTPUT"),
        (("publish", "m"), "give the rates"),
        (("import", "deepseek-v4-flash"), "cannot begin in the past"),
    ):
        told = command.run("prices", *arguments)
        assert told.exit_code == 1, arguments
        assert words in told.output, told.output
