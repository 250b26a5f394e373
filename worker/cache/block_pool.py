"""A fixed set of interchangeable blocks with reference counts. Used by `manager` for pages, for
state slots and for snapshots.

A block is *free* (no content), *held* (one or more references), or *cached* without references:
its content may be found again, until the least recently used one is evicted to make room.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable


class BlockPool:
    """Blocks 0 .. size-1. `on_evict` is told a block's id just before its content is given up;
    where nothing is ever cached it is not needed."""

    def __init__(self, size: int, on_evict: Callable[[int], None] = lambda _: None) -> None:
        self.size = size
        self._on_evict = on_evict
        self._references = [0] * size
        self._free = list(range(size - 1, -1, -1))
        self._cached: set[int] = set()
        self._evictable: OrderedDict[int, None] = OrderedDict()  # oldest first

    @property
    def available(self) -> int:
        """Blocks that `allocate` can still give out."""
        return len(self._free) + len(self._evictable)

    @property
    def held(self) -> int:
        """Blocks with at least one reference."""
        return self.size - self.available

    def allocate(self) -> int | None:
        """A block with one reference and undefined content; None when all are held."""
        if not self._free:
            if not self._evictable:
                return None
            oldest = next(iter(self._evictable))
            self._on_evict(oldest)
            self.forget(oldest)
        block = self._free.pop()
        self._references[block] = 1
        return block

    def acquire(self, block: int) -> None:
        """Add a reference to a block whose content is known."""
        assert self._references[block] or block in self._cached
        self._evictable.pop(block, None)
        self._references[block] += 1

    def release(self, block: int) -> None:
        """Drop a reference. The last one makes the block evictable (newest) or free."""
        assert self._references[block] > 0
        self._references[block] -= 1
        if self._references[block] == 0:
            if block in self._cached:
                self._evictable[block] = None
            else:
                self._free.append(block)

    def cache(self, block: int) -> None:
        """Keep the content of a held block findable after its last reference is dropped."""
        assert self._references[block] > 0
        self._cached.add(block)

    def forget(self, block: int) -> None:
        """Give up the content of a cached block."""
        self._cached.remove(block)
        if block in self._evictable:
            del self._evictable[block]
            self._free.append(block)

    def check(self, references: Iterable[int], cached: Iterable[int]) -> None:
        """Assert that these are all the references (with multiplicity) and all cached blocks."""
        counts = Counter(references)
        assert self._references == [counts[b] for b in range(self.size)]
        assert self._cached == set(cached)
        assert set(self._evictable) == {b for b in self._cached if not counts[b]}
        free = {b for b in range(self.size) if not counts[b] and b not in self._cached}
        assert len(self._free) == len(free)
        assert set(self._free) == free
