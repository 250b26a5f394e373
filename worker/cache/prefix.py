"""What has been computed before: full pages by content, and the state snapshots at their ends.

A page's key is a hash chain over everything before it, so equal keys mean equal prefixes under
the same model and the same salt. A key that is found tells where a page's compressed entries lie;
to continue from it a sequence needs the state at its end too, kept in a snapshot or rebuilt. Used
by `manager`.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass


def root_key(model_revision: str, salt: bytes) -> bytes:
    """The parent of first pages: sequences of other models or salts never share a key."""
    revision = model_revision.encode()
    return hashlib.blake2b(
        len(revision).to_bytes(8) + revision + salt, digest_size=32, person=b"prefix root"
    ).digest()


def page_key(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The key of the page that holds `token_ids` after the pages of `parent`."""
    return hashlib.blake2b(parent + array("I", token_ids).tobytes(), digest_size=32).digest()


@dataclass(slots=True)
class PrefixNode:
    """A computed page. `snapshot`: where the state at its end is, None if not kept."""

    page: int
    snapshot: int | None = None


class PrefixIndex:
    """Nodes by key, and back from the pages and snapshots they occupy."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, PrefixNode] = {}
        self._by_page: dict[int, bytes] = {}
        self._by_snapshot: dict[int, bytes] = {}

    def get(self, key: bytes) -> PrefixNode | None:
        return self._nodes.get(key)

    def add(self, key: bytes, page: int) -> bool:
        """Make `page` findable; False when another page with this content already is."""
        if key in self._nodes:
            return False
        self._nodes[key] = PrefixNode(page)
        self._by_page[page] = key
        return True

    def add_snapshot(self, key: bytes, snapshot: int) -> bool:
        """Attach a state to a node; False when the node is gone or has one."""
        node = self._nodes.get(key)
        if node is None or node.snapshot is not None:
            return False
        node.snapshot = snapshot
        self._by_snapshot[snapshot] = key
        return True

    def holds(self, page: int) -> bool:
        """Whether `page` is findable."""
        return page in self._by_page

    def remove_page(self, page: int) -> int | None:
        """Drop a page's node; returns the snapshot that went with it."""
        node = self._nodes.pop(self._by_page.pop(page))
        if node.snapshot is not None:
            del self._by_snapshot[node.snapshot]
        return node.snapshot

    def remove_snapshot(self, snapshot: int) -> None:
        """Drop a state; its page stays."""
        self._nodes[self._by_snapshot.pop(snapshot)].snapshot = None

    @property
    def pages(self) -> list[int]:
        """Every findable page."""
        return list(self._by_page)

    @property
    def snapshots(self) -> list[int]:
        """Every findable snapshot."""
        return list(self._by_snapshot)
