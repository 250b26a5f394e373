"""The rules of the definitions, evaluated by a CEL library: the old API server knows none.

Every rule is found in the rendered chart, and must let a good object pass and refuse a bad one.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cel
import pytest
from support import helm

Body = dict[str, Any]

POOL: Body = {
    "path": "serverless",
    "configurations": ["h200-x4"],
    "weights": {"pvc": {"claim": "weights"}},
    "scaling": {"min": 0, "max": 2},
    "isolation": {"node": "shared"},
}
DEDICATED: Body = {
    **POOL,
    "path": "dedicated",
    "tenant": "acme",
    "isolation": {"node": "dedicated"},
}
FIXED: Body = {**{k: v for k, v in POOL.items() if k != "scaling"}, "replicas": 2}
ENDPOINT: Body = {"tenant": "acme", "configurations": ["h200-x1"]}
REPLICA: Body = {
    "owner": "flash",
    "revision": "a1",
    "configuration": {"id": "h200-x4"},
    "weights": {"hub": {"repo": "deepseek-ai/flash"}},
    "weight": 100,
    "drain": "",
}


@dataclass(frozen=True)
class Rule:
    """A rule where it stands: the path of its object below `spec`."""

    kind: str
    path: tuple[str, ...]
    expression: str
    message: str


@dataclass(frozen=True)
class Case:
    """What a rule must let pass, and what it must refuse; each an object, or (old, new)."""

    good: list[Any]
    bad: list[Any] = field(default_factory=list)


def but(body: Body, **changes: Any) -> Body:
    """Return a changed copy; None takes a field away."""
    changed = {**copy.deepcopy(body), **changes}
    return {name: value for name, value in changed.items() if value is not None}


SOURCES = Case(
    good=[{"pvc": {}}, {"s3": {}, "digest": ""}, {"hub": {}}, {"image": {}}],
    bad=[{}, {"digest": ""}, {"pvc": {}, "hub": {}}],
)
TENANCY = Case(
    good=[(ENDPOINT, but(ENDPOINT, state="Stopped"))],
    bad=[(ENDPOINT, but(ENDPOINT, tenant="other"))],
)
CASES: dict[tuple[str, str], Case] = {
    ("InferenceDeployment", "give either replicas or scaling"): Case(
        good=[POOL, FIXED],
        bad=[but(POOL, replicas=2), but(POOL, scaling=None)],
    ),
    (
        "InferenceDeployment",
        "a dedicated deployment has a tenant, a serverless pool has none",
    ): Case(
        good=[POOL, DEDICATED, but(POOL, tenant="")],
        bad=[but(POOL, tenant="acme"), but(DEDICATED, tenant=None), but(DEDICATED, tenant="")],
    ),
    (
        "InferenceDeployment",
        "the path is immutable: delete the deployment and make another",
    ): Case(good=[(POOL, POOL)], bad=[(POOL, DEDICATED)]),
    ("InferenceDeployment", "a serverless pool shares its nodes"): Case(
        good=[POOL, DEDICATED], bad=[but(POOL, isolation={"node": "dedicated"})]
    ),
    ("InferenceDeployment", "min must not exceed max"): Case(
        good=[{"min": 0, "max": 1}, {"min": 2, "max": 2}], bad=[{"min": 3, "max": 2}]
    ),
    ("InferenceDeployment", "give exactly one of pvc, s3, hub and image"): SOURCES,
    ("Replica", "give exactly one of pvc, s3, hub and image"): SOURCES,
    ("GPUEndpoint", "the tenant is immutable"): TENANCY,
    ("Replica", "the tenant is immutable"): TENANCY,
    ("Replica", "a drain is not taken back"): Case(
        good=[
            (REPLICA, but(REPLICA, drain="scaled down")),
            (but(REPLICA, drain=None), REPLICA),
            (but(REPLICA, drain="a"), but(REPLICA, drain="b")),
        ],
        bad=[
            (but(REPLICA, drain="a"), REPLICA),
            (but(REPLICA, drain="a"), but(REPLICA, drain=None)),
        ],
    ),
    (
        "Replica",
        "a replica is what it is: only weight, drain and drainTimeoutSeconds change",
    ): Case(
        good=[(REPLICA, but(REPLICA, weight=10))],
        bad=[
            (REPLICA, but(REPLICA, revision="b2")),
            (REPLICA, but(REPLICA, configuration={"id": "b200-x8"})),
        ],
    ),
}


def found(kind: str, schema: Body, path: tuple[str, ...]) -> Iterator[Rule]:
    """Yield the rules of a schema and of all below it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield Rule(kind, path, rule["rule"], rule["message"])
    for name, inner in schema.get("properties", {}).items():
        yield from found(kind, inner, (*path, name))
    if isinstance(schema.get("items"), dict):
        yield from found(kind, schema["items"], (*path, "[]"))


@pytest.fixture(scope="module")
def rules() -> list[Rule]:
    """Every rule that a new server is given."""
    return [
        rule
        for body in helm.render(helm.CRDS_CHART)
        for version in body["spec"]["versions"]
        for rule in found(body["spec"]["names"]["kind"], version["schema"]["openAPIV3Schema"], ())
    ]


def holds(rule: Rule, case: Any) -> bool:
    old, new = case if isinstance(case, tuple) else (None, case)
    variables = {"self": new} if old is None else {"self": new, "oldSelf": old}
    answer = cel.evaluate(rule.expression, variables)
    assert isinstance(answer, bool)
    return answer


def test_every_rule_has_cases_and_every_case_a_rule(rules: list[Rule]) -> None:
    assert {(rule.kind, rule.message) for rule in rules} == set(CASES)


def test_good_objects_pass(rules: list[Rule]) -> None:
    for rule in rules:
        for case in CASES[rule.kind, rule.message].good:
            assert holds(rule, case), (rule.message, case)


def test_bad_objects_are_refused(rules: list[Rule]) -> None:
    for rule in rules:
        cases = CASES[rule.kind, rule.message].bad
        assert cases, rule.message
        for case in cases:
            assert not holds(rule, case), (rule.message, case)


def test_rules_of_change_speak_of_what_always_exists(rules: list[Rule]) -> None:
    """A rule with `oldSelf` in a field that may be absent would never see it come or go.

    A Replica's are for people's mistakes alone: only the operator writes it.
    """
    for rule in rules:
        if "oldSelf" in rule.expression and rule.kind != "Replica":
            assert rule.path == ("spec",), rule
