"""What manifests need of the installation, beyond the replica: one object, made by `main`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.crd.conditions import Reason
from controlplane.crd.engine import EngineName
from controlplane.planner.refusal import Refused

ENGINE_PORT = 8000
SERVICE_ACCOUNT = "flashplane-replica"  # in every tenant namespace; it may do nothing
TOKEN_SECRET = "flashplane-engine-token"
TOKEN_KEY = "token"


@dataclass(frozen=True)
class PodSettings:
    """How replicas' pods are made here.

    Attributes:
        images: container image of each engine, by digest; a deployment may name its own. Our
            engine's has a name by default, for machines where images are not looked at.
        cache_path: folder on nodes where fetched weights are kept, made by whoever sets nodes up
            and writable for user 10001. Pod Security's restricted and baseline levels forbid it, so
            it serves only `cache_namespaces`; elsewhere weights are fetched into the pod's own disk
            at each start, or lie on a claim.
        cache_namespaces: namespaces whose pods may use `cache_path`.
        engine_token: whether engines ask requests for the token in the Secret TOKEN_SECRET.
        leader_worker_sets: whether that kind is installed; without it no replica spans nodes.
    """

    images: Mapping[str, str] = field(default_factory=lambda: {"flash": "flashplane-worker"})
    image_pull_secrets: tuple[str, ...] = ()
    cache_path: str = ""
    cache_namespaces: frozenset[str] = frozenset()
    engine_token: bool = False
    leader_worker_sets: bool = False

    def image(self, engine: EngineName) -> str:
        """Return an engine's image; that of `flash` also fetches weights.

        Raises:
            Refused: there is none.
        """
        found = self.images.get(engine)
        if not found:
            raise Refused(
                Reason.IMAGE_UNAVAILABLE,
                f"this installation has no image of {engine}: name one in engine.image, "
                "or in the chart's values",
            )
        return found
