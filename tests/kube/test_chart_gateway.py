"""The gateways' set: its number, its journals, its end."""

from support.chart_values import AUTOSCALING, MATRIX
from support.helm import of_kind, render


def test_an_autoscaled_gateway_leaves_the_number_to_the_autoscaler() -> None:
    objects = render(values={"gateway": {"autoscaling": AUTOSCALING}})
    (gateway,) = of_kind(objects, "StatefulSet")
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert "replicas" not in gateway["spec"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == gateway["metadata"]["name"]


def test_a_fixed_gateway_has_no_autoscaler() -> None:
    objects = render()
    assert of_kind(objects, "StatefulSet")[0]["spec"]["replicas"] == 2
    assert of_kind(objects, "HorizontalPodAutoscaler") == []


def test_a_gateway_may_finish_its_streams_before_it_is_killed() -> None:
    (gateway,) = of_kind(render(values={"gateway": {"shutdownGraceSeconds": 300}}), "StatefulSet")
    pod = gateway["spec"]["template"]["spec"]
    values = {it["name"]: it.get("value", "") for it in pod["containers"][0]["env"]}
    assert values["FLASHPLANE_SHUTDOWN_GRACE_SECONDS"] == "300"
    assert pod["terminationGracePeriodSeconds"] >= 300 + 15


def test_single_replicas_have_no_disruption_budget() -> None:
    budgets = {it["metadata"]["name"] for it in of_kind(render(), "PodDisruptionBudget")}
    assert budgets == {"fp-flashplane-gateway", "fp-flashplane-api", "fp-flashplane-operator"}
    assert of_kind(render(values=MATRIX["small"]), "PodDisruptionBudget") == []


def test_budgets_let_nodes_be_drained() -> None:
    for budget in of_kind(render(), "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


def test_journals_outlive_pods_and_releases() -> None:
    (gateway,) = of_kind(render(), "StatefulSet")
    spec = gateway["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenScaled": "Retain",
        "whenDeleted": "Retain",
    }
    (claim,) = spec["volumeClaimTemplates"]
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {it["name"]: it["mountPath"] for it in container["volumeMounts"]}
    values = {it["name"]: it.get("value", "") for it in container["env"]}
    folder = values["FLASHPLANE_JOURNAL_DIR"]
    assert folder.startswith(mounts[claim["metadata"]["name"]] + "/")
    assert values["FLASHPLANE_GATEWAY_NAME"] == "$(POD_NAMESPACE)/$(POD_NAME)"
