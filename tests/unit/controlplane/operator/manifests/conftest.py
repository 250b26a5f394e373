"""Every object rendered here is checked against Kubernetes' own schema."""

from collections.abc import Callable

import kubernetes_validate
import pytest

from controlplane.cluster import Object

KUBERNETES = "1.34.0"


@pytest.fixture
def valid() -> Callable[[Object], Object]:
    """Return what it is given if Kubernetes' schema has every field of it."""

    def check(body: Object) -> Object:
        kubernetes_validate.validate(body, KUBERNETES, strict=True)
        return body

    return check
