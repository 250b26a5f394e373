"""`flashplane config`: every setting, from the one place that defines them."""

import json
import re
from typing import Annotated

import typer
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from controlplane.settings import Settings

MASK = "********"
URL_PASSWORD = re.compile(r"^(\w+://[^/:@]*:)[^/@]*(@)")


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("config")(show)


def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting: its environment variable, value, default and meaning."""
    rows = setting_rows(Settings())
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        default = f"  (default {row['default']})" if row["default"] != row["value"] else ""
        typer.echo(f"{row['name']}={row['value']}{default}\n    {row['meaning']}")


def setting_rows(settings: Settings) -> list[dict[str, str]]:
    """Return one row per setting; secrets are masked."""
    return [
        {
            "name": environment_name(name, field),
            "value": _shown(getattr(settings, name)),
            "default": _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def environment_name(name: str, field: FieldInfo) -> str:
    """Return the environment variable that sets a field."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    return "" if value is None else URL_PASSWORD.sub(rf"\1{MASK}\2", str(value))
