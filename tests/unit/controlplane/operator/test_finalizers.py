"""Our finalizer comes and goes; those of others stay."""

from controlplane.cluster import Object
from controlplane.crd.base import ENDPOINTS, FINALIZER
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.operator.finalizers import hold, is_held, let_go, let_go_unread


def endpoint(*finalizers: str) -> Object:
    metadata = {"uid": "u", "resourceVersion": "7", "finalizers": list(finalizers)}
    spec = {"tenant": "t", "configurations": ["h200"]}
    return GPUEndpoint.body("fp-t", "dev", metadata=metadata, spec=spec)


def change(*finalizers: str) -> Object:
    return {"metadata": {"finalizers": list(finalizers), "resourceVersion": "7"}}


def test_an_object_is_held_beside_others_finalizers() -> None:
    assert hold(GPUEndpoint.of(endpoint("other/one"))).change == change("other/one", FINALIZER)


def test_an_object_is_let_go_as_far_as_we_are_concerned() -> None:
    body = endpoint("other/one", FINALIZER)
    assert let_go(GPUEndpoint.of(body)).change == change("other/one")
    assert is_held(body)
    assert let_go_unread(ENDPOINTS, body).change == change("other/one")
    assert not is_held(endpoint("other/one"))
