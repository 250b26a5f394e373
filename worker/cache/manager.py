"""Gives sequences their pages and state slots, and finds what need not be computed again.

The scheduler calls it. Pages are shared between sequences by reference; a state slot belongs to one
sequence. A shared page is never written: what is known ends on a page boundary, and the next entry
lies in a page of the sequence's own. The state there is copied from a snapshot or rebuilt by
computing the last `state_reach_tokens` before it again, whichever is less work.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.cache.block_pool import BlockPool
from worker.cache.prefix import PrefixIndex, page_key, root_key
from worker.request import Request


@dataclass(slots=True)
class _Chain:
    """One request's page keys so far, how many of its pages are findable or not worth it, and from
    which position on its state is exact."""

    keys: list[bytes]
    offered: int = 0
    exact_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """How a sequence starts: from `snapshot` (copy it into the state slot; release it with
    `unpin` after the step) or from nothing (reset the slot). `branch_tokens`: up to here its pages
    are known; if no state was kept, it is worth a snapshot now."""

    snapshot: int | None
    branch_tokens: int


@dataclass(frozen=True, slots=True)
class _Hit:
    pages: list[int] = field(default_factory=list)
    start_tokens: int = 0  # where computing has to begin
    snapshot: int | None = None  # of the state there


class CacheManager:
    """All pages, slots and snapshots of one engine. Snapshots are kept at multiples of
    `snapshot_interval_pages` (0: never). `state_reach_tokens`: see ModelConfig; None: no state is
    rebuilt. `model_revision` separates models that share a salt."""

    def __init__(
        self,
        *,
        pages: int,
        state_slots: int,
        snapshots: int,
        page_tokens: int,
        snapshot_interval_pages: int = 1,
        state_reach_tokens: int | None = None,
        model_revision: str = "",
    ) -> None:
        self.page_tokens = page_tokens
        self.snapshot_interval_tokens = snapshot_interval_pages * page_tokens
        self._reach = state_reach_tokens
        self._revision = model_revision
        self._index = PrefixIndex()
        self._pages = BlockPool(pages, self._page_evicted)
        self._slots = BlockPool(state_slots)
        self._snapshots = BlockPool(snapshots, self._index.remove_snapshot)
        self._chains: dict[str, _Chain] = {}

    @property
    def page_usage(self) -> float:
        """Fraction of pages held by running sequences."""
        return self._pages.held / self._pages.size

    @property
    def pages_left(self) -> int:
        """Pages that sequences can still be given."""
        return self._pages.available

    def admit(self, request: Request, *, reuse: bool) -> Admission | None:
        """Give `request` a state slot and, with `reuse`, the longest known prefix of its tokens.

        Sets its pages, slot and computed tokens: those that need not be computed again. None, and
        nothing changed, when no slot is left.
        """
        slot = self._slots.allocate()
        if slot is None:
            return None
        hit = self._find(request) if reuse else _Hit()
        for page in hit.pages:
            self._pages.acquire(page)
        if hit.snapshot is not None:
            self._snapshots.acquire(hit.snapshot)
        request.pages = list(hit.pages)
        request.state_slot = slot
        request.computed_tokens = hit.start_tokens
        known = len(hit.pages) * self.page_tokens
        rebuilt = hit.start_tokens > 0 and hit.snapshot is None
        chain = self._chain(request)
        chain.offered = len(hit.pages)
        chain.exact_tokens = known if rebuilt else hit.start_tokens
        return Admission(hit.snapshot, known)

    def known_tokens(self, request: Request) -> int:
        """Positions of an admitted `request` whose entries its pages hold, maybe shared; more than
        its computed tokens while a state is being rebuilt."""
        return self._chain(request).offered * self.page_tokens

    def extend(self, request: Request, token_count: int) -> bool:
        """Grow the pages of `request` to cover `token_count` positions, wholly or not at all."""
        missing = -(-token_count // self.page_tokens) - len(request.pages)
        if missing <= 0:  # almost every decode
            return True
        if missing > self._pages.available:
            return False
        for _ in range(missing):
            page = self._pages.allocate()
            assert page is not None
            request.pages.append(page)
        return True

    def has_snapshot(self, request: Request, token_count: int) -> bool:
        """Whether the state after the first `token_count` tokens is already kept."""
        node = self._index.get(self._keys(request, token_count // self.page_tokens)[-1])
        return node is not None and node.snapshot is not None

    def reserve_snapshot(self, request: Request, token_count: int) -> int | None:
        """A snapshot for the state after `token_count` tokens, to be filled by this step and handed
        to `commit`; None where none is to be kept, or it is kept already, or the state is still
        being rebuilt, or no snapshot can be spared. Of tokens that are yet a guess nothing can be
        looked up: `commit` finds out."""
        interval = self.snapshot_interval_tokens
        if not interval or token_count % interval:
            return None
        if token_count < self._chain(request).exact_tokens:
            return None
        known = token_count <= request.token_count
        if known and self.has_snapshot(request, token_count):
            return None
        return self._snapshots.allocate()

    def commit(self, request: Request, snapshot: int | None) -> None:
        """Offer the full pages below `request.computed_tokens` for reuse, now that they are
        computed, and the snapshot of the state at exactly that position."""
        full = request.computed_tokens // self.page_tokens
        chain = self._chain(request)
        if full <= chain.offered and snapshot is None:  # almost every decode
            return
        keys = self._keys(request, full)
        for i in range(chain.offered, full):
            if self._index.add(keys[i], request.pages[i]):
                self._pages.cache(request.pages[i])
        chain.offered = max(chain.offered, full)
        if snapshot is not None:
            if self._index.add_snapshot(keys[full - 1], snapshot):
                self._snapshots.cache(snapshot)
            self._snapshots.release(snapshot)

    def unpin(self, snapshot: int | None) -> None:
        """Let go of a snapshot that a step has read or that a cancelled step was to fill."""
        if snapshot is not None:
            self._snapshots.release(snapshot)

    def distrust(self, request: Request) -> None:
        """Make nothing that `request` holds findable any longer, for it came to no good end: who
        begins alike computes it anew, instead of failing likewise."""
        for page in request.pages:
            if self._index.holds(page):
                self._page_evicted(page)
                self._pages.forget(page)

    def vacate(self, request: Request) -> None:
        """Take back everything `request` holds until it is admitted again; its computed pages stay
        findable. Its keys are kept: a long prompt that waits is not to be hashed at every step."""
        # Last page first: the start of a prefix is of more use, so its end is evicted earlier.
        for page in reversed(request.pages):
            self._pages.release(page)
        if request.state_slot >= 0:
            self._slots.release(request.state_slot)
        request.pages = []
        request.state_slot = -1
        request.computed_tokens = 0

    def release(self, request: Request) -> None:
        """`vacate` for good: forget `request`."""
        self.vacate(request)
        self._chains.pop(request.request_id, None)

    def check(self, requests: Iterable[Request], pinned: Iterable[int] = ()) -> None:
        """Assert that no page, slot or snapshot is leaked or held twice, given all live requests
        and the snapshots a step in flight reads or fills."""
        live = list(requests)
        slots = [r.state_slot for r in live if r.state_slot >= 0]
        assert len(slots) == len(set(slots))
        self._pages.check([p for r in live for p in r.pages], self._index.pages)
        self._slots.check(slots, cached=())
        self._snapshots.check(pinned, self._index.snapshots)
        assert self._chains.keys() <= {r.request_id for r in live}

    def _find(self, request: Request) -> _Hit:
        """The longest known chain that leaves a token to compute, and the latest start in it."""
        pages: list[int] = []
        start, snapshot = 0, None
        for key in self._keys(request, (request.token_count - 1) // self.page_tokens):
            node = self._index.get(key)
            if node is None:
                break
            pages.append(node.page)
            if node.snapshot is not None:
                start, snapshot = len(pages) * self.page_tokens, node.snapshot
        if self._reach is not None and len(pages) * self.page_tokens - self._reach > start:
            start, snapshot = len(pages) * self.page_tokens - self._reach, None
        return _Hit(pages, start, snapshot)

    def _chain(self, request: Request) -> _Chain:
        if request.request_id not in self._chains:
            self._chains[request.request_id] = _Chain([])
        return self._chains[request.request_id]

    def _keys(self, request: Request, count: int) -> list[bytes]:
        """Keys of the first `count` pages of `request`."""
        keys = self._chain(request).keys
        parent = keys[-1] if keys else root_key(self._revision, request.cache_salt)
        for start in range(
            len(keys) * self.page_tokens, count * self.page_tokens, self.page_tokens
        ):
            parent = page_key(parent, request.token_ids(start, start + self.page_tokens))
            keys.append(parent)
        return keys[:count]

    def _page_evicted(self, page: int) -> None:
        snapshot = self._index.remove_page(page)
        if snapshot is not None:
            self._snapshots.forget(snapshot)
