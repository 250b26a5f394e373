"""The ranks that share the routed experts, and how they reach each other.

Every rank is a process with all of the model but the experts, of which it holds one equal part.
`worker.engine.rank` joins a group, `all_to_all` sends rows through it, and the engine's step loop
agrees through it on what the ranks do next. Collectives are entered by all ranks in the same
order; one that a rank does not enter in time, or dies in, raises `PeerLost` on the others.

Rows travel by gloo between CPUs and by NCCL between GPUs, the few numbers of an agreement always
by gloo. The groups are made without torch's process-wide registry, so that several can live in one
process; all their sockets are on the loopback interface.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
from torch.distributed import (  # type: ignore[attr-defined]
    PrefixStore,
    ProcessGroup,
    ProcessGroupGloo,
    TCPStore,
    Work,
)

from worker.errors import ConfigError, PeerLost

LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 300.0  # for all ranks to have started: some import torch from a cold disk


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank's place in a group that meets at `port` of the loopback interface."""

    rank: int
    size: int
    port: int
    timeout_seconds: float  # of one collective


class ExpertGroup:
    """The group as one rank sees it."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        rows: ProcessGroup | None = None,
        numbers: ProcessGroup | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self._rows = rows
        self._numbers = numbers

    def experts(self, count: int) -> range:
        """This rank's share of `count` experts. Raises ConfigError if they cannot be split."""
        check_split(count, self.size)
        share = count // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """The numbers of every rank, in order of rank; each gives equally many. Raises PeerLost."""
        if self._numbers is None:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.int64)
        everyones = [torch.empty_like(own) for _ in range(self.size)]
        _finish(self._numbers.allgather([everyones], [own]))
        return [theirs.tolist() for theirs in everyones]

    def exchange(self, rows: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        """The first `sent[0]` rows go to rank 0, the next `sent[1]` to rank 1, and so on; returns
        the `received[r]` rows that rank r sent here, in order of rank. Raises PeerLost."""
        assert self._rows is not None
        arrived = rows.new_empty((sum(received), *rows.shape[1:]))
        _finish(self._rows.alltoall_base(arrived, rows.contiguous(), received, sent))
        return arrived


ALONE = ExpertGroup()


def join(seat: Seat, device: str, wait_seconds: float = JOIN_SECONDS) -> ExpertGroup:
    """Take a seat, and wait for all ranks to have done so. Raises PeerLost."""
    patience = timedelta(seconds=wait_seconds)
    try:
        store = TCPStore(LOOPBACK, seat.port, is_master=False, timeout=patience)
        numbers = _gloo(PrefixStore("numbers", store), seat, patience)
        on_cpu = torch.device(device).type == "cpu"
        rows = numbers if on_cpu else _nccl(PrefixStore("rows", store), seat)
    except RuntimeError as error:  # torch's connection and timeout errors are kinds of it
        raise PeerLost(str(error)) from error
    return ExpertGroup(seat.rank, seat.size, rows, numbers)


def take_gpu(rank: int) -> None:
    """Make GPU number `rank` this process's. Raises ConfigError: there are fewer."""
    count = torch.cuda.device_count()
    if rank >= count:
        raise ConfigError(f"--ep-size needs a GPU for each rank; this machine has {count}")
    torch.cuda.set_device(rank)


def meeting_point() -> TCPStore:
    """A store at which ranks can meet (its `port`), for as long as the object lives."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),  # torch would listen on every interface
    )


def check_split(experts: int, size: int) -> None:
    """Raises ConfigError, naming the sizes that work, unless `size` ranks get equal shares."""
    if size < 1 or experts % size:
        valid = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
        raise ConfigError(
            f"{experts} experts cannot be split evenly over {size} ranks; --ep-size may be {valid}"
        )


# torch's stubs lack the backends' collectives, which are those of ProcessGroup.
def _gloo(store: PrefixStore, seat: Seat, patience: timedelta) -> ProcessGroup:
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [ProcessGroupGloo.create_device(hostname=LOOPBACK)]
    options._timeout = patience
    group = ProcessGroupGloo(store, seat.rank, seat.size, options)
    group.set_timeout(timedelta(seconds=seat.timeout_seconds))
    return cast("ProcessGroup", group)


def _nccl(store: PrefixStore, seat: Seat) -> ProcessGroup:
    from torch.distributed import ProcessGroupNCCL  # only torch builds with CUDA have it

    options = ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=seat.timeout_seconds)
    return cast("ProcessGroup", ProcessGroupNCCL(store, seat.rank, seat.size, options))


def _finish(work: Work) -> None:
    try:
        work.wait()
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
