"""How commands print what the admin API answered: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

PIPED_WIDTH = 1000  # a pipe has no width to fit, and a program wants a row a line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="Most rows.")]


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: the named columns as a table, or everything as JSON."""
    rows = list(rows)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    # Nothing is ever cut: an id or a sum with its end missing is worse than a tall row.
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
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
