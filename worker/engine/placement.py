"""Which rank runs a request: where its prefix is cached, else where there is least to do.

Pure: `worker.engine.group` tells it the loads. It knows the page keys that ranks have been sent,
not what they still hold; to be wrong costs a recomputation.
"""

from collections import OrderedDict
from collections.abc import Sequence

from worker.cache.prefix import page_key, root_key
from worker.request import Request


class Placement:
    """`pages` bounds what is remembered: as many page keys as all ranks together have pages. A rank
    that runs `full_at` requests has no advantage from a cached prefix: a request would wait."""

    def __init__(self, *, page_tokens: int, model_revision: str, pages: int, full_at: int) -> None:
        self._page_tokens = page_tokens
        self._revision = model_revision
        self._pages = pages
        self._full_at = full_at
        self._holders: OrderedDict[bytes, int] = OrderedDict()  # ranks as bits, oldest key first

    def choose(self, request: Request, loads: Sequence[int]) -> int:
        """The rank for `request`, given how many requests each has; remembers the choice."""
        keys = self._keys(request)
        everyone = (1 << len(loads)) - 1
        holders = everyone
        for key in keys:
            remaining = holders & self._holders.get(key, 0)
            if not remaining:
                break
            holders = remaining
        least = min(loads)
        best = [rank for rank in range(len(loads)) if holders >> rank & 1]
        with_room = [rank for rank in best if loads[rank] < self._full_at or loads[rank] == least]
        rank = min(with_room or range(len(loads)), key=lambda rank: loads[rank])
        self._remember(keys, rank)
        return rank

    def _keys(self, request: Request) -> list[bytes]:
        """Keys of the prompt's full pages."""
        prompt, size = request.prompt_token_ids, self._page_tokens
        keys = [root_key(self._revision, request.cache_salt)]
        for stop in range(size, len(prompt) + 1, size):
            keys.append(page_key(keys[-1], prompt[stop - size : stop]))
        return keys[1:]

    def _remember(self, keys: list[bytes], rank: int) -> None:
        # Last page first: the start of a prefix is of more use, so it is forgotten later.
        for key in reversed(keys):
            self._holders[key] = self._holders.pop(key, 0) | 1 << rank
        while len(self._holders) > self._pages:
            self._holders.popitem(last=False)
