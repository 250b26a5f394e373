"""Proofs of life: which GPU time was really had. Only proven time is billed.

The operator repeats one record every three seconds for each replica of the dedicated and bare paths
that serves, and tells an end within one. `alive_since` reaches back to the first proof of an
unbroken life, so that a store that was down for a while costs no proof.
"""

import msgspec

from controlplane.registry.heartbeats import Count, Moment, Table, Text


class Lease(msgspec.Struct, frozen=True):
    """One replica's proven life. Times are seconds since 1970 UTC.

    Attributes:
        uid: the Replica object's uid, the key of its interval.
        replica: the Replica object's name.
        deployment: `<namespace>/<name>` of its owner.
        path: dedicated or bare.
        tenant_id: who pays.
        configuration: the GPU configuration's id.
        gpus: GPUs had.
        spot: whether the spot rate holds.
        alive_since: since when it has been proven without a break.
        published_at: the newest proof.
        ended: the life is over at `published_at`; said once, the record then goes stale.
        interrupted: it ended because the provider took its machine away, after a notice.
    """

    uid: Text
    replica: Text
    deployment: Text
    path: Text
    tenant_id: Text
    configuration: Text
    gpus: Count
    spot: bool
    alive_since: Moment
    published_at: Moment
    ended: bool = False
    interrupted: bool = False


TABLE = Table("flashplane:leases", Lease)
