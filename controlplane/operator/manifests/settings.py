"""What manifests need of the installation, beyond the replica: one object, made by `main`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ENGINE_PORT = 8000
SERVICE_ACCOUNT = "flashplane-replica"  # in every tenant namespace; it may do nothing
TOKEN_SECRET = "flashplane-engine-token"
TOKEN_KEY = "token"


@dataclass(frozen=True)
class PodSettings:
    """How replicas' pods are made here.

    Attributes:
        images: container image of each engine, by digest; a deployment may name its own.
        fetch_image: image with `flashplane-worker fetch` and `digest`; empty: that of `flash`.
        cache_path: folder on nodes where fetched weights are kept, made by whoever sets nodes up
            and writable for user 10001. Pod Security's restricted and baseline levels forbid it, so
            it serves only `cache_namespaces`; elsewhere weights are fetched into the pod's own disk
            at each start, or lie on a claim.
        cache_namespaces: namespaces whose pods may use `cache_path`.
        engine_token: whether engines ask requests for the token in the Secret TOKEN_SECRET.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    fetch_image: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    cache_path: str = ""
    cache_namespaces: frozenset[str] = frozenset()
    engine_token: bool = False
