"""`flashplane prices`: what tokens cost, when and for whom. Calls of the admin API."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.errors import StartupError
from controlplane.pricing import examples
from controlplane.settings import Settings

COLUMNS = ("model", "path", "tenant_id", "calendar", "rates", "effective_from")
CALENDAR_COLUMNS = ("name", "id", "time_zone", "band_now", "next_change", "holidays_known_until")
CHANGE_COLUMNS = ("requests", "old_usd", "new_usd", "difference_usd")

Model = Annotated[str, typer.Argument(help="Such as deepseek-v4-flash.")]
Hit = Annotated[str, typer.Option(help="USD per million cached input tokens.")]
Miss = Annotated[str, typer.Option(help="USD per million other input tokens.")]
Output = Annotated[str, typer.Option(help="USD per million output tokens.")]
PerRequest = Annotated[str, typer.Option("--request", help="USD per request, beside its tokens.")]
ForTenant = Annotated[str, typer.Option("--tenant", help="For this tenant alone: name or id.")]
OnCalendar = Annotated[str, typer.Option(help="Name of a calendar, for a price with --band.")]
Bands = Annotated[
    list[str] | None,
    typer.Option("--band", help="NAME=HIT/MISS/OUTPUT[/REQUEST], one for each of the calendar's."),
]
Since = Annotated[str, typer.Option(help="Such as 2026-10-01T00:00:00Z; last month.")]
Until = Annotated[str, typer.Option(help="The moment before which it ends.")]

prices = typer.Typer(
    cls=Commands, help="List, preview, publish and import prices.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(prices, name="prices")


@prices.command("list")
def list_prices(
    model: Annotated[str, typer.Option(help="Only this model's.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant's own: name or id.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List price versions in the order they were published."""
    with AdminClient(Settings()) as client:
        query = {"model": model} if model else {}
        rows = client.pages("/prices", query | _of_tenant(client, tenant), limit)
        _print_prices(rows, as_json=as_json)


@prices.command("publish")
def publish_price(
    model: Model,
    hit: Hit = "",
    miss: Miss = "",
    output: Output = "",
    request: PerRequest = "",
    tenant: ForTenant = "",
    calendar: OnCalendar = "",
    band: Bands = None,
    effective_from: Annotated[
        str, typer.Option("--from", help="Such as 2026-12-01T00:00:00Z; without it, now.")
    ] = "",
    ends: Annotated[
        bool, typer.Option("--ends", help="Give the tenant back the price for all.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a price, from now on or from a moment to come; running requests keep theirs.

    \b
    For example:
      flashplane prices publish m --hit 0.0028 --miss 0.14 --output 0.28
      flashplane prices publish m --tenant acme --hit 0.002 --miss 0.1 --output 0.2
      flashplane prices publish m --tenant acme --ends
      flashplane prices publish m --calendar deepseek-peak \\
          --band off-peak=0.007/0.22/0.66 --band peak=0.014/0.44/1.32
    """
    with AdminClient(Settings()) as client:
        body = _price(model, hit, miss, output, request, calendar, band)
        body |= _of_tenant(client, tenant)
        body |= {"effective_from": effective_from} if effective_from else {}
        body |= {"ends_override": True} if ends else {}
        answer = client.call("POST", "/prices", json=body)
    _print_price(answer, as_json=as_json)


@prices.command("preview")
def preview_price(
    model: Model,
    hit: Hit = "",
    miss: Miss = "",
    output: Output = "",
    request: PerRequest = "",
    tenant: ForTenant = "",
    calendar: OnCalendar = "",
    band: Bands = None,
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """Tell what a price would have made of last month's traffic, or of any other time's.

    Nothing is published. For example:

    flashplane prices preview deepseek-v4-flash --hit 0.003 --miss 0.15 --output 0.60
    """
    with AdminClient(Settings()) as client:
        price = _price(model, hit, miss, output, request, calendar, band)
        body: dict[str, Any] = {"price": price | _of_tenant(client, tenant)}
        body |= {name: it for name, it in (("since", since), ("until", until)) if it}
        answer = client.call("POST", "/prices/preview", json=body)
    if as_json:
        print_one(answer, as_json=True)
        return
    bands, tenants = answer.pop("bands"), answer.pop("tenants")
    print_one(answer, as_json=False)
    print_rows(bands, ("old_band", "new_band", *CHANGE_COLUMNS), as_json=False)
    print_rows(tenants, ("tenant_id", *CHANGE_COLUMNS), as_json=False)


@prices.command("show")
def show_price(
    model: Model,
    tenant: Annotated[str, typer.Option(help="As this tenant pays it: name or id.")] = "",
    at: Annotated[str, typer.Option(help="Another moment than now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell what a model costs now, in which band, and when that changes."""
    with AdminClient(Settings()) as client:
        query = {"model": model} | _of_tenant(client, tenant) | ({"at": at} if at else {})
        answer = client.call("GET", "/prices/current", params=query)
    _print_price(answer, as_json=as_json)


@prices.command("calendars")
def list_calendars(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List calendars, the band that holds now on each and when it changes."""
    with AdminClient(Settings()) as client:
        rows = client.pages("/price-calendars", {}, limit)
        print_rows(rows, CALENDAR_COLUMNS, as_json=as_json)


@prices.command("import")
def import_prices(
    book: Annotated[str, typer.Argument(help="A YAML file, or the name of a book that ships.")],
    as_json: AsJson = False,
) -> None:
    """Publish a book: calendars, and a history of prices. Importing it again changes nothing.

    `flashplane prices import deepseek-v4-flash` publishes DeepSeek's own prices; a model that has
    a price takes no history of the past.
    """
    body = _document(book)
    with AdminClient(Settings()) as client:
        answer = client.call("POST", "/prices/import", json=body)
    if as_json:
        print_one(answer, as_json=True)
    else:
        _print_prices(answer["prices"], as_json=False)


def _document(book: str) -> dict[str, Any]:
    """Return the book as JSON has it."""
    try:
        text = examples.text(book) or Path(book).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"The book {book} cannot be read ({type(error).__name__}). These ship:"
            f" {', '.join(examples.names())}."
        ) from None
    except yaml.YAMLError as error:
        raise StartupError(f"The book {book} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise StartupError(f"The book {book} needs `calendars` and `prices`.")
    # YAML knows dates, JSON does not.
    told: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return told


def _price(
    model: str,
    hit: str,
    miss: str,
    output: str,
    request: str,
    calendar: str,
    bands: list[str] | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model} | _rates(hit, miss, output, request)
    if bands:
        body["bands"] = dict(_band(text) for text in bands)
    if calendar:
        body["calendar"] = calendar
    return body


def _rates(hit: str, miss: str, output: str, request: str = "") -> dict[str, str]:
    named = {
        "hit_usd_per_million": hit,
        "miss_usd_per_million": miss,
        "output_usd_per_million": output,
        "request_usd": request,
    }
    return {name: text for name, text in named.items() if text}


def _band(text: str) -> tuple[str, dict[str, str]]:
    name, _, rates = text.partition("=")
    parts = rates.split("/")
    if not name or len(parts) not in (3, 4):
        raise StartupError(f"{text!r} is no band: write NAME=HIT/MISS/OUTPUT[/REQUEST].")
    return name, _rates(*parts)


def _of_tenant(client: AdminClient, tenant: str) -> dict[str, str]:
    return {"tenant_id": client.tenant_id(tenant)} if tenant else {}


def _in_words(price: dict[str, Any]) -> dict[str, str]:
    if not price["bands"]:
        return {"rates": "ends the tenant's own price"}
    return {"rates": "; ".join(_told(band, it) for band, it in price["bands"].items())}


def _told(band: str, rates: dict[str, str]) -> str:
    told = (
        f"{band}: hit {rates['hit_usd_per_million']}, miss {rates['miss_usd_per_million']},"
        f" output {rates['output_usd_per_million']} USD/1M"
    )
    free = rates["request_usd"] == "0.00"
    return told if free else f"{told} + {rates['request_usd']} USD/request"


def _print_prices(rows: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    shown = rows if as_json else (row | _in_words(row) for row in rows)
    print_rows(shown, COLUMNS, as_json=as_json)


def _print_price(price: dict[str, Any], *, as_json: bool) -> None:
    shown = price if as_json else {**price, "bands": _in_words(price)["rates"]}
    print_one(shown, as_json=as_json)
