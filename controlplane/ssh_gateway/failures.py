"""Who failed to log in too often lately: pure, called by `server`."""

from collections import OrderedDict, deque

WINDOW_SECONDS = 60.0
MOST_FAILURES = 20
MOST_PEERS = 10_000


class Failures:
    """Failed logins of the last minute by peer address."""

    def __init__(self) -> None:
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, peer: str, now: float) -> None:
        """Count a failure. The peers that failed longest ago are forgotten first."""
        moments = self._moments.setdefault(peer, deque(maxlen=MOST_FAILURES))
        moments.append(now)
        self._moments.move_to_end(peer)
        while len(self._moments) > MOST_PEERS:
            self._moments.popitem(last=False)

    def too_many(self, peer: str, now: float) -> bool:
        """Return whether a peer has to wait."""
        moments = self._moments.get(peer)
        if moments is None or len(moments) < MOST_FAILURES:
            return False
        return now - moments[0] < WINDOW_SECONDS
