"""What nodes have told lately: notices and GPU errors, kept up by the caches of nodes and Events.

It remembers for a day what a node stopped telling, since agents overwrite their last word; an
operator that starts anew begins with what the objects still say.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from controlplane.cluster import Object
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.health.reports import error_of_event, errors_of_node
from controlplane.operator.signals import GPUError

REMEMBERED_SECONDS = 86_400.0


class Board:
    """Safe for use by many threads; what it returns never changes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._first_seen: dict[str, float] = {}  # of a notice that has no time of its own
        self._notices: Mapping[str, float] = MappingProxyType({})
        self._errors: Mapping[str, tuple[GPUError, ...]] = MappingProxyType({})

    def set_node(self, name: str, node: Node | None) -> None:
        """Take a node's newest state; None: it is gone."""
        with self._lock:
            seen_at = self._first_seen.get(name, self._clock())
            notice = None if node is None else node.notice(seen_at)
            if notice is None:
                self._first_seen.pop(name, None)
            else:
                self._first_seen[name] = seen_at
            if self._notices.get(name) != notice:
                others = {key: it for key, it in self._notices.items() if key != name}
                self._notices = others if notice is None else {**others, name: notice}
            if node is None:
                self._errors = {key: it for key, it in self._errors.items() if key != name}
            else:
                self._remember(name, errors_of_node(node))

    def take_event(self, body: Object) -> str | None:
        """Take an Event; return the node whose error it tells of."""
        told = error_of_event(body)
        if told is None:
            return None
        with self._lock:
            self._remember(told[0], [told[1]])
        return told[0]

    def notices(self) -> Mapping[str, float]:
        """Return `Signals.notices`."""
        return self._notices

    def errors(self) -> Mapping[str, tuple[GPUError, ...]]:
        """Return `Signals.gpu_errors`."""
        return self._errors

    def _remember(self, name: str, told: Iterable[GPUError]) -> None:
        before = self._errors.get(name, ())
        oldest = self._clock() - REMEMBERED_SECONDS
        every = {(it.at, it.xid): it for it in (*before, *told) if it.at >= oldest}
        after = tuple(sorted(every.values(), key=lambda it: it.at))
        if after != before:
            self._errors = {**self._errors, name: after}
