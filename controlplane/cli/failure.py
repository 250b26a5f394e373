"""How a command fails: one sentence on standard error and exit code 1, never a traceback."""

from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from controlplane.errors import ControlPlaneError, StartupError


class Commands(TyperGroup):
    """A group of commands whose expected errors are sentences."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (StartupError, ControlPlaneError) as error:
            typer.echo(f"error: {error}", err=True)
        except ValidationError as error:
            for wrong in error.errors():
                name = "_".join(str(part) for part in wrong["loc"]).upper()
                typer.echo(f"error: the setting {name} is not valid: {wrong['msg']}", err=True)
        raise typer.Exit(1)
