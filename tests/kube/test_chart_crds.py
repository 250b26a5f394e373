"""The chart of the resource definitions: equal to the types, fit for old and new servers."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support import helm

from controlplane.crd.schema import definitions, render

ANNOTATION_LIMIT_BYTES = 262_144


def by_name(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {body["metadata"]["name"]: body for body in objects}


def test_committed_definitions_are_what_the_types_say(tmp_path: Path) -> None:
    fresh = {file.name: file.read_text() for file in render(tmp_path)}
    committed = {file.name: file.read_text() for file in helm.CRDS_CHART.glob("files/*.yaml")}
    assert committed == fresh, (
        "run `python -m controlplane.crd.schema charts/flashplane-crds/files`"
    )


def test_lint_has_nothing_to_say() -> None:
    result = helm.run("lint", "--strict", str(helm.CRDS_CHART))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("version", "rules"), [("1.20", False), ("1.24", False), ("1.25", True)])
def test_rules_are_given_to_servers_that_know_them(version: str, rules: bool) -> None:
    rendered = helm.render(helm.CRDS_CHART, version=version)
    assert by_name(rendered) == by_name(definitions(rules=rules))


def test_definitions_are_valid_for_the_newest_server() -> None:
    for body in helm.render(helm.CRDS_CHART, version=helm.NEWEST):
        kubernetes_validate.validate(body, helm.NEWEST, strict=True)


def test_definitions_survive_an_uninstall() -> None:
    for body in helm.render(helm.CRDS_CHART):
        assert body["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_definitions_fit_the_annotation_of_client_side_apply() -> None:
    for body in helm.render(helm.CRDS_CHART):
        assert len(json.dumps(body)) < ANNOTATION_LIMIT_BYTES // 2


def test_there_is_nothing_to_choose() -> None:
    result = helm.rendering(helm.CRDS_CHART, {"rules": True})
    assert result.returncode != 0
    assert "rules" in result.stderr


def test_the_chart_tells_the_hub_of_every_kind() -> None:
    chart = yaml.safe_load((helm.CRDS_CHART / "Chart.yaml").read_text())
    told = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    assert {it["name"] for it in told} == set(by_name(definitions()))
