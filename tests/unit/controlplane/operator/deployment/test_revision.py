from support.deployment_world import World, dedicated, spec

from controlplane.crd.inference import Template
from controlplane.operator.deployment.revision import endpoint, revision, template


def of(**parts: object) -> str:
    return revision(template(World(spec(**parts)).deployment.spec))


def test_what_an_engine_is_made_of_makes_a_revision() -> None:
    assert of() == of()
    changes = [
        {"model": "other"},
        {"engine": {"name": "vllm"}},
        {"weights": {"pvc": {"claim": "others"}}},
    ]
    assert len({of(), *(of(**change) for change in changes)}) == 4


def test_where_and_how_many_makes_none() -> None:
    assert of() == of(replicas=5)
    assert of() == of(configurations=["h200-x4", "b200-x8"], budgetGPUs=8)
    assert of() == of(rollout={"surge": 2}, drain={"timeoutSeconds": 5}, stopped=True)


def test_a_default_that_is_spelled_out_changes_nothing() -> None:
    assert of() == of(engine={"name": "flash", "kvCacheDtype": "fp8"}, isolation={"node": "shared"})


def test_a_revision_stays_the_same_over_releases() -> None:
    """Another hash here would roll out every deployment there is."""
    assert of() == "26652f875f"


def test_a_template_survives_the_status() -> None:
    made = template(World(dedicated(isolation={"node": "dedicated"})).deployment.spec)
    assert revision(Template.model_validate(made.wire())) == revision(made)


def test_a_dedicated_deployment_is_asked_for_by_its_own_name() -> None:
    assert endpoint(World(dedicated()).deployment, "flash") == "flash@chat"
    assert endpoint(World(spec()).deployment, "flash") == "flash"
