"""The audit log's anchors: a volume that outlives the release, written by the jobs alone."""

from typing import Any

from support.chart_values import MATRIX
from support.helm import merged, of_kind, pod_templates, render, rendering

MONEY = MATRIX["of money"]


def volumes(values: dict[str, Any]) -> dict[str, set[str]]:
    """The volumes of each pod by its component."""
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: {
            it["name"] for it in pod["spec"]["volumes"]
        }
        for pod in pod_templates(render(values=values)).values()
    }


def test_without_anchors_there_is_no_volume_and_no_tick() -> None:
    objects = render()
    assert of_kind(objects, "PersistentVolumeClaim") == []
    assert "FLASHPLANE_AUDIT_ANCHOR_FILE" not in str(objects)


def test_only_the_jobs_reach_the_anchors_and_their_key() -> None:
    having = {who: names & {"anchors", "audit-key"} for who, names in volumes(MONEY).items()}
    assert {who for who, names in having.items() if names} == {"jobs"}
    assert having["jobs"] == {"anchors", "audit-key"}


def test_the_clock_is_told_that_anchors_are_wanted() -> None:
    """It ticks the task only where a file is set, and never opens it."""
    (beat,) = [
        pod for name, pod in pod_templates(render(values=MONEY)).items() if name.endswith("-beat")
    ]
    given = {it["name"] for it in beat["spec"]["containers"][0]["env"]}
    assert "FLASHPLANE_AUDIT_ANCHOR_FILE" in given


def test_the_anchors_outlive_the_release() -> None:
    (claim,) = of_kind(render(values=MONEY), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_signing_key_never_lies_beside_what_it_signs() -> None:
    given = merged(MONEY, {"auditAnchors": {"signingKey": {"existingSecret": ""}}})
    assert "set auditAnchors.signingKey.existingSecret" in rendering(values=given).stderr


def test_several_jobs_want_a_volume_that_all_can_mount() -> None:
    several = merged(MONEY, {"jobs": {"replicas": 2}})
    assert "ReadWriteMany" in rendering(values=several).stderr
    shared = merged(several, {"auditAnchors": {"accessMode": "ReadWriteMany"}})
    (claim,) = of_kind(render(values=shared), "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
