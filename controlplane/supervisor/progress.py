"""What `up` and `down` tell while they work: a spinner on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


class Progress:
    """Tells one line per finished step, and anything else that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str, *, underway: str = "") -> Iterator[None]:
        """Tell how long the step took when it is done; on a terminal, that it is under way.

        Args:
            underway: what to call it until it is done, where `title` would be untrue.
        """
        started = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(underway or title):
                yield
        else:
            yield
        line = Text.assemble(
            ("ok", "green"), f"  {title} ", (f"{time.monotonic() - started:.1f} s", "dim")
        )
        self._console.print(line, soft_wrap=True)

    def say(self, line: str) -> None:
        """Tell one line."""
        self._console.print(Text.assemble(("--", "yellow"), f"  {line}"), soft_wrap=True)
