"""`python -m controlplane.cli`: how the supervisor starts its children."""

from controlplane.cli.main import app

app()
