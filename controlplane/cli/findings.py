"""What `flashplane doctor` finds, and how it tells it. Made by `doctor` and `cluster_doctor`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import typer


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is empty when nothing needs fixing."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


def tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings.

    Raises:
        typer.Exit: one of them is not ok; the exit code is 1.
    """
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for it in findings:
            fix = f" -> {it.fix}" if it.fix else ""
            typer.echo(f"{'ok  ' if it.ok else 'FAIL'}  {it.check}: {it.detail}{fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
