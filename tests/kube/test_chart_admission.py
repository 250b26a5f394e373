"""The admission policies' expressions, evaluated by a CEL library: 1.20 has no such policies."""

from typing import Any

import cel
import pytest
from support import helm
from support.helm import of_kind

from controlplane.operator.manifests.tenant import tenant_namespace

OPERATOR = "system:serviceaccount:flashplane:fp-flashplane-operator"
JOBS = "system:serviceaccount:flashplane:fp-flashplane-jobs"
ADMIN = "kubernetes-admin"


@pytest.fixture(scope="module")
def policies() -> dict[str, dict[str, Any]]:
    found = of_kind(helm.render(), "ValidatingAdmissionPolicy")
    return {it["metadata"]["name"].removeprefix("fp-flashplane-"): it["spec"] for it in found}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    spelled = {word.replace("__", "/").replace("_io", ".io"): it for word, it in labels.items()}
    return {"metadata": {"name": name, **({"labels": spelled} if labels else {})}}


def relaxed(level: str) -> dict[str, Any]:
    body = tenant_namespace("fp-acme", "acme")
    body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = level
    return body


def admitted(policy: dict[str, Any], user: str, **objects: Any) -> bool:
    """Whether a request passes; a policy that does not match lets it."""
    variables = {"request": {"userInfo": {"username": user}}, **objects}
    if not all(cel.evaluate(it["expression"], variables) for it in policy["matchConditions"]):
        return True
    return all(cel.evaluate(it["expression"], variables) for it in policy["validations"])


TENANT = namespace("fp-acme", flashplane_io__tenant="acme")
RESTRICTED = tenant_namespace("fp-acme", "acme")


@pytest.mark.parametrize(
    ("user", "where", "passes"),
    [
        (OPERATOR, TENANT, True),
        (OPERATOR, namespace("flashplane"), True),
        (OPERATOR, namespace("kube-system"), False),
        (OPERATOR, namespace("other", team="a"), False),
        (ADMIN, namespace("kube-system"), True),
    ],
)
def test_the_operator_binds_roles_in_tenants_namespaces_alone(
    policies: dict[str, dict[str, Any]], user: str, where: dict[str, Any], passes: bool
) -> None:
    assert admitted(policies["bindings"], user, namespaceObject=where) is passes


@pytest.mark.parametrize(
    ("user", "old", "new", "passes"),
    [
        (OPERATOR, None, RESTRICTED, True),
        (OPERATOR, None, TENANT, False),
        (JOBS, None, TENANT, True),
        (OPERATOR, TENANT, RESTRICTED, True),
        (OPERATOR, RESTRICTED, TENANT, False),
        (OPERATOR, RESTRICTED, relaxed("privileged"), False),
        (JOBS, RESTRICTED, RESTRICTED, True),
        (OPERATOR, None, namespace("plain"), False),
        (OPERATOR, namespace("kube-system"), RESTRICTED, False),
        (JOBS, TENANT, namespace("fp-acme"), False),
        (ADMIN, None, namespace("plain"), True),
    ],
)
def test_namespaces_are_made_for_tenants_and_never_taken_over(
    policies: dict[str, dict[str, Any]], user: str, old: Any, new: Any, passes: bool
) -> None:
    assert admitted(policies["namespaces"], user, object=new, oldObject=old) is passes
