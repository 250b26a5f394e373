"""Which deployments can be asked for, and how far each is from serving.

The operator publishes one record a deployment every second. A gateway that finds a pool without a
replica holds its requests for `hold_timeout_seconds` and reports them, which starts one.
"""

import msgspec

from controlplane.registry.heartbeats import Count, Moment, Seconds, Table


class Pool(msgspec.Struct, frozen=True):
    """A deployment as gateways see it.

    Attributes:
        name: the deployment, `<namespace>/<name>`; what `Replica.deployment` says.
        model: the name customers ask for.
        path: serverless or dedicated.
        tenant_id: the only tenant it serves; empty for all.
        phase: what it is doing, in a word, for the client that waits: `Stopped`, `Pending`,
            `Fetching`, `Loading`, `Probing`, `Serving`, ...
        serving: replicas that can be asked.
        desired: replicas wanted.
        max_model_len: the longest context its replicas serve, in tokens; 0 while unknown.
        eta_seconds: estimated time until one serves; None when unknown, 0 when one does.
        hold_timeout_seconds: how long a request is held while none serves.
        startable: whether demand starts a replica; false while stopped on purpose.
    """

    name: str
    model: str
    path: str
    published_at: Moment
    tenant_id: str = ""
    phase: str = "Pending"
    serving: Count = 0
    desired: Count = 0
    max_model_len: Count = 0
    eta_seconds: Seconds | None = None
    hold_timeout_seconds: Seconds = 0.0
    startable: bool = True


TABLE = Table("flashplane:pools", Pool)
