"""How a container is entered: the Protocol that sessions need. `websocket` is the real one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

STDOUT, STDERR = 1, 2


class RemoteError(Exception):
    """The container cannot be entered; the message is for the person at the other end."""


@dataclass(frozen=True)
class Terminal:
    """The terminal at the other end."""

    kind: str
    columns: int
    rows: int


class RemoteProcess(Protocol):
    """A process inside a container."""

    async def write(self, data: bytes) -> None:
        """Give it input; waits while it takes none."""

    async def write_eof(self) -> None:
        """Tell it that no more input comes."""

    async def resize(self, columns: int, rows: int) -> None:
        """Tell it its terminal's new size."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what it says on `STDOUT` and `STDERR` until it has ended."""

    async def exit_status(self) -> int:
        """Return its exit status; once `output` has ended."""

    async def close(self) -> None:
        """Leave it; what still runs loses its terminal and input."""


class Remote(Protocol):
    """Enters containers."""

    async def start(
        self, namespace: str, pod: str, argv: list[str], terminal: Terminal | None
    ) -> RemoteProcess:
        """Start a process in a pod's customer container, on a terminal if there is one.

        Raises:
            RemoteError: it cannot be entered.
        """

    async def address(self, namespace: str, pod: str) -> str:
        """Return a pod's address, to forward ports to.

        Raises:
            RemoteError: it has none.
        """
