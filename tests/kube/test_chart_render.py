"""The chart renders for every choice of values, valid for old and new clusters."""

from typing import Any

import kubernetes_validate
import pytest
from support import helm
from support.chart_values import AUTOSCALING, FOREIGN, MATRIX, MONITORING, ROUTES
from support.helm import of_kind, render

from controlplane.crd.configuration import CATALOGUE_NAME
from controlplane.operator.health import table as xids
from controlplane.planner import catalogue


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_choice_renders_for_old_servers_with_unique_names(values: dict[str, Any]) -> None:
    objects = render(values=values, version=helm.OLDEST, apis=(*MONITORING, *ROUTES))
    keys = [(it["kind"], it["metadata"]["name"]) for it in objects]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_object_is_valid_for_the_newest_server(values: dict[str, Any]) -> None:
    for body in render(values=values, apis=(*MONITORING, *ROUTES)):
        if body["kind"] not in FOREIGN:
            kubernetes_validate.validate(body, helm.NEWEST, strict=True)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_lint_has_nothing_to_say(values: dict[str, Any]) -> None:
    if "httpRoute" in values:
        pytest.skip("lint knows no cluster that has the Gateway API")
    result = helm.run("lint", "--strict", str(helm.CHART), values=helm.merged(helm.GIVEN, values))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "missing required" not in result.stderr


def test_old_servers_get_kinds_they_know() -> None:
    versions = {
        it["kind"]: it["apiVersion"]
        for it in render(values={"gateway": {"autoscaling": AUTOSCALING}}, version=helm.OLDEST)
    }
    assert versions["PodDisruptionBudget"] == "policy/v1beta1"
    assert versions["CronJob"] == "batch/v1beta1"
    assert versions["HorizontalPodAutoscaler"] == "autoscaling/v2beta2"
    assert "ValidatingAdmissionPolicy" not in versions


def table(values: dict[str, Any], name: str, key: str) -> str:
    tables = of_kind(render(values=values), "ConfigMap")
    (found,) = [it["data"][key] for it in tables if it["metadata"]["name"] == name]
    return str(found)


def test_the_shipped_catalogue_is_read_by_its_own_parser() -> None:
    text = table({}, CATALOGUE_NAME, catalogue.KEY)
    assert catalogue.parse(text) == catalogue.parse(catalogue.default_text())


def test_another_catalogue_takes_its_place() -> None:
    one = {"id": "mine", "gpu": "H200", "count": 4, "memoryGib": 140.0}
    text = table({"catalogue": {"configurations": [one]}}, CATALOGUE_NAME, catalogue.KEY)
    assert list(catalogue.parse(text)) == ["mine"]


def test_changed_xid_actions_are_laid_on_the_table() -> None:
    text = table({"xidActions": {"79": "reset-gpu"}}, xids.TABLE_NAME, "actions.yaml")
    assert xids.parse(text)[79] is xids.Action.RESET_GPU
    assert xids.parse(table({}, xids.TABLE_NAME, "actions.yaml")) == xids.XID_ACTIONS
