"""What `up` tells of a step: true while it is under way and true when it is done."""

import io

from rich.console import Console
from support.polling import until

from controlplane.supervisor.progress import Progress


def test_a_terminal_is_told_that_a_step_is_under_way_and_then_that_it_is_done() -> None:
    told = io.StringIO()
    progress = Progress(Console(file=told, force_terminal=True, width=80))
    with progress.step("Stopped gateway", underway="Stopping gateway"):
        until(lambda: "Stopping gateway" in told.getvalue(), seconds=30, what="a spinner")
        assert "Stopped" not in told.getvalue()
    assert "Stopped gateway" in told.getvalue()


def test_a_file_is_told_only_of_what_is_done() -> None:
    told = io.StringIO()
    progress = Progress(Console(file=told, width=80))
    with progress.step("Stopped gateway", underway="Stopping gateway"):
        assert told.getvalue() == ""
    assert told.getvalue().startswith("ok  Stopped gateway ")
    assert "Stopping" not in told.getvalue()
