"""The program `flashplane`; called by its console script and by `python -m controlplane.cli`.

Imports nothing before it runs: Ctrl-C while the commands are being imported ends it as silently as
Ctrl-C afterwards.
"""

INTERRUPTED = 130  # what a shell calls the end by SIGINT


def app() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    try:
        from controlplane.cli import commands
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    commands.app(prog_name="flashplane")
