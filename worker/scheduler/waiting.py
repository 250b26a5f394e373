"""Who is served next: strictly by priority, then fairly between keys, then by arrival.

Within a priority this is fair queueing by tokens, after the virtual token counter of Sheng et al.,
"Fairness in Serving Large Language Models" (OSDI 2024): each key has a counter of the service it
has received, and the key with the lowest goes first. A position counts once, when it is first
computed: what the prefix cache holds is free, and so is computing again after a preemption, which
is the engine's shortage and must not throw a key further back each time. A key that had nothing
waiting is lifted to those that have: idleness earns nothing. Used by `scheduler`.
"""

import bisect
import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from worker.request import Request

OUTPUT_WEIGHT = 2  # an output token counts as two of the prompt, as in the paper
MAX_IDLE_KEYS = 4_096

Rank = tuple[int, int, int, int]


@dataclass(slots=True, eq=False)
class _Flow:
    """One key's requests of one priority. `listed`: it has an entry in its level's heap."""

    serial: int
    service: int  # weighted tokens
    live: int = 0
    waiting: list["_Ticket"] = field(default_factory=list)  # by arrival
    listed: bool = False


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request's place, which it keeps when it is preempted. Its key has been charged for the
    positions below `charged_tokens`, other than those the prefix cache held."""

    request: Request
    flow: _Flow
    arrival: int
    charged_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Level:
    """All keys of one priority, as long as one of them has a request.

    `heap` has one entry for every flow with waiting requests: (service, serial, flow), where the
    service may be out of date, hence too low. `idle` remembers the counters of keys without
    requests, so that leaving for a moment settles no debt; the longest idle are forgotten.
    """

    flows: dict[str, _Flow] = field(default_factory=dict)
    heap: list[tuple[int, int, _Flow]] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)
    last_served: _Flow | None = None

    def first(self) -> _Flow | None:
        """The flow to serve next."""
        while self.heap:
            service, serial, flow = self.heap[0]
            if not flow.waiting:
                heapq.heappop(self.heap)
                flow.listed = False
            elif service != flow.service:
                heapq.heapreplace(self.heap, (flow.service, serial, flow))
            else:
                return flow
        return None

    def floor(self) -> int:
        """The least service a key can begin to wait with."""
        reference = self.first() or self.last_served
        return 0 if reference is None else reference.service


class WaitingQueue:
    """Requests that wait, and the service that the keys of all live ones have received."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._count = 0
        self._serials = itertools.count()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Request]:
        """Every waiting request, in no order."""
        for level in self._levels.values():
            for flow in level.flows.values():
                yield from (t.request for t in flow.waiting)

    def get(self, request_id: str) -> Request | None:
        """A live request, waiting or not; None when the id is unknown."""
        ticket = self._tickets.get(request_id)
        return None if ticket is None else ticket.request

    def add(self, request: Request) -> None:
        """A new request waits."""
        level = self._levels.setdefault(request.priority, _Level())
        key = request.fairness_key
        if key not in level.flows:
            level.flows[key] = _Flow(next(self._serials), level.idle.pop(key, 0))
        flow = level.flows[key]
        if not flow.waiting:
            flow.service = max(flow.service, level.floor())
        flow.live += 1
        ticket = _Ticket(request, flow, next(self._serials))
        self._tickets[request.request_id] = ticket
        self._enqueue(ticket)

    def peek(self) -> Request | None:
        """The waiting request that is served next."""
        for priority in sorted(self._levels):
            flow = self._levels[priority].first()
            if flow is not None:
                return flow.waiting[0].request
        return None

    def take(self, request: Request) -> None:
        """`request` waits no longer: it is served from now on."""
        ticket = self._tickets[request.request_id]
        self._dequeue(ticket)
        self._levels[request.priority].last_served = ticket.flow

    def put_back(self, request: Request) -> None:
        """`request` was preempted and waits again, at its place."""
        self._enqueue(self._tickets[request.request_id])

    def forget(self, request: Request) -> None:
        """`request` is over, whether it waits or not."""
        ticket = self._tickets.pop(request.request_id)
        flow, level = ticket.flow, self._levels[request.priority]
        if ticket in flow.waiting:
            self._dequeue(ticket)
        flow.live -= 1
        if flow.live == 0:
            del level.flows[request.fairness_key]
            level.idle[request.fairness_key] = flow.service
            if len(level.idle) > MAX_IDLE_KEYS:
                del level.idle[next(iter(level.idle))]
        if not level.flows:
            del self._levels[request.priority]  # nobody is left to owe anything to

    def charge(self, request: Request, end: int) -> None:
        """Count positions `request.computed_tokens` .. `end`-1 as served, each once."""
        ticket = self._tickets[request.request_id]
        if end > ticket.charged_tokens:
            start = max(request.computed_tokens, ticket.charged_tokens)
            prompt_tokens = len(request.prompt_token_ids)
            output = max(0, end - max(start, prompt_tokens))
            ticket.flow.service += end - start + (OUTPUT_WEIGHT - 1) * output
            ticket.charged_tokens = end

    def rank(self, request: Request) -> Rank:
        """Sorts live requests, waiting or not: the lowest is served first and preempted last."""
        ticket = self._tickets[request.request_id]
        return request.priority, ticket.flow.service, ticket.flow.serial, ticket.arrival

    def check(self, running: Iterable[Request]) -> None:
        """Assert that the live requests are those that wait and those that run, each once, and
        that a step finds the next one."""
        waiting = [r.request_id for r in self]
        assert len(waiting) == self._count
        assert sorted([*waiting, *(r.request_id for r in running)]) == sorted(self._tickets)
        for level in self._levels.values():
            assert level.flows.keys().isdisjoint(level.idle)
            assert len(level.idle) <= MAX_IDLE_KEYS
            entries = {serial: service for service, serial, _ in level.heap}
            assert len(entries) == len(level.heap)
            for flow in level.flows.values():
                assert flow.live == sum(t.flow is flow for t in self._tickets.values()) > 0
                assert flow.waiting == sorted(flow.waiting, key=lambda t: t.arrival)
                assert flow.listed or not flow.waiting
                assert not flow.listed or entries[flow.serial] <= flow.service
        first = min(self, key=self.rank, default=None)
        assert self.peek() is first

    def _enqueue(self, ticket: _Ticket) -> None:
        flow = ticket.flow
        bisect.insort(flow.waiting, ticket, key=lambda t: t.arrival)
        self._count += 1
        if not flow.listed:
            level = self._levels[ticket.request.priority]
            heapq.heappush(level.heap, (flow.service, flow.serial, flow))
            flow.listed = True

    def _dequeue(self, ticket: _Ticket) -> None:
        ticket.flow.waiting.remove(ticket)
        self._count -= 1
