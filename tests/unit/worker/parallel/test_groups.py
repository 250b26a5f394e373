import os
import time
from pathlib import Path

import pytest
from support.expert_ranks import ranks

from worker.errors import ConfigError, PeerLost
from worker.parallel.groups import ALONE, ExpertGroup, Seat, check_split, join, meeting_point


def test_shares_cover_all_experts_without_overlap() -> None:
    shares = [ExpertGroup(rank, 4).experts(256) for rank in range(4)]
    assert shares == [range(0, 64), range(64, 128), range(128, 192), range(192, 256)]
    assert ALONE.experts(256) == range(256)


@pytest.mark.parametrize("size", [0, 3, 16])
def test_uneven_shares_are_refused_naming_the_sizes_that_work(size: int) -> None:
    with pytest.raises(ConfigError, match=r"--ep-size may be 1, 2, 4, 8$"):
        check_split(8, size)


def test_every_rank_gathers_the_numbers_of_all() -> None:
    with ranks(3) as together:
        gathered = together.each(lambda group: group.gather([group.rank, 7 - group.rank]))
    assert gathered == [[[0, 7], [1, 6], [2, 5]]] * 3


def test_a_rank_alone_gathers_its_own() -> None:
    assert ALONE.gather([3, True]) == [[3, True]]


def test_a_rank_that_does_not_come_is_given_up() -> None:
    def mostly(group: ExpertGroup) -> None:
        if group.rank > 0:
            group.gather([1])

    with ranks(3, timeout_seconds=0.5) as together:
        began = time.monotonic()
        with pytest.raises(PeerLost):
            together.each(mostly)
        assert 0.4 < time.monotonic() - began < 5


def test_a_seat_that_nobody_joins_is_given_up() -> None:
    store = meeting_point()
    with pytest.raises(PeerLost):
        join(Seat(0, 2, store.port, 60.0), "cpu", wait_seconds=0.5)


def test_every_listening_socket_is_on_the_loopback_interface() -> None:
    with ranks(2) as together:
        together.each(lambda group: group.gather([0]))
        assert set(listening_addresses()) == {"127.0.0.1"}


def listening_addresses() -> list[str]:
    """Of this process's TCP sockets over IPv4; over IPv6 there may be none."""
    own = {os.readlink(f) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                raw = bytes.fromhex(fields[1].split(":")[0])
                found.append(".".join(map(str, raw[::-1])))
    return found
