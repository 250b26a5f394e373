"""Proofs that volumes exist: which storage was really had. Only proven existence is billed.

The operator repeats one record every few seconds for each bound volume claim of a bare endpoint,
whether the endpoint runs or is stopped, and tells the end of one that is gone.
"""

import msgspec

from controlplane.registry.heartbeats import Count, Moment, Table, Text


class Volume(msgspec.Struct, frozen=True):
    """One volume's proven existence. Times are seconds since 1970 UTC.

    Attributes:
        uid: the claim's uid, the key of its interval.
        claim: the claim's name.
        deployment: `<namespace>/<name>` of the endpoint that owns it.
        tenant_id: who pays.
        storage_class: as ordered; empty: the cluster's default.
        size_gib: as ordered.
        alive_since: since when it has been seen bound.
        published_at: until when it is known to be there.
        ended: it was gone soon after `published_at`; said once, the record then goes stale.
    """

    uid: Text
    claim: Text
    deployment: Text
    tenant_id: Text
    storage_class: Text
    size_gib: Count
    alive_since: Moment
    published_at: Moment
    ended: bool = False


TABLE = Table("flashplane:volumes", Volume)
