"""Ports that are free now and stay free until whoever they are for listens there.

The kernel lends ports above 32767 to any connection that leaves this machine's processes, so a free
one of those may be taken a moment later; these lie below. Test processes side by side draw from
shares of their own.
"""

import errno
import itertools
import os
import random
import socket

_FIRST, _END = 10_000, 32_000
_PROCESSES = 8
_SHARE = (_END - _FIRST) // _PROCESSES


def _share() -> int:
    """Return the first port of this process's share."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return _FIRST + int(worker.removeprefix("gw")) % _PROCESSES * _SHARE


# Begun somewhere else each time: ports of a run before this may linger, or still be in use.
_turns = itertools.count(random.SystemRandom().randrange(_SHARE))


def free_port() -> int:
    """Return a port of the loopback nobody listens on."""
    for turn in itertools.islice(_turns, _SHARE):
        port = _share() + turn % _SHARE
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return port
    raise AssertionError("every port is taken")
