"""How commands print what the admin API answered: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="Most rows.")]


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: the named columns as a table, or everything as JSON."""
    rows = list(rows)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console().print(table)
    if not rows:
        typer.echo("none")


def print_one(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line a field, or as JSON."""
    if as_json:
        typer.echo(json.dumps(row, indent=2))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        typer.echo(f"{name:{width}}  {'' if value is None else value}")
