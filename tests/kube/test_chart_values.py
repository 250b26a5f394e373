"""What the chart asks for and what it refuses, by name."""

import json
from typing import Any

import pytest
import yaml
from support import helm
from support.helm import rendering


@pytest.mark.parametrize("missing", ["database", "redis", "pepper"])
def test_what_must_be_given_is_asked_for_by_name(missing: str) -> None:
    result = rendering(values={missing: {"existingSecret": ""}})
    assert result.returncode != 0
    assert f"set {missing}.existingSecret to the name of a Secret" in result.stderr


def test_the_ssh_gateway_wants_a_key_of_its_own() -> None:
    result = rendering(values={"sshGateway": {"hostKey": {"existingSecret": ""}}})
    assert "set sshGateway.hostKey.existingSecret" in result.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"gatewy": {}}, "gatewy"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": 0}}, "replicas"),
        ({"gateway": {"replicas": "two"}}, "replicas"),
        ({"gateway": {"autoscaling": {"minReplicas": 2}}}, "autoscaling"),
        ({"gateway": {"journal": {"size": "five"}}}, "size"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"database": {"url": "postgresql://in-the-open"}}, "url"),
        ({"database": {"existingSecret": "Not A Name"}}, "existingSecret"),
        ({"settings": {"database_url": "postgresql://in-the-open"}}, "database_url"),
        ({"settings": {"engine_token": "in-the-open"}}, "engine_token"),
        ({"settings": {"LOG_LEVEL": "DEBUG"}}, "LOG_LEVEL"),
        ({"sshGateway": {"service": {"type": "ExternalName"}}}, "type"),
        ({"networkPolicy": {"gatewayFrom": [{"everybody": True}]}}, "everybody"),
        ({"networkPolicy": {"apiServerPorts": [0]}}, "apiServerPorts"),
        ({"xidActions": {"79": "pray"}}, "xidActions"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    result = rendering(values=values)
    assert result.returncode != 0
    assert told in result.stderr


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    def compare(schema: dict[str, Any], value: object, path: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert isinstance(value, dict)
        assert set(schema["properties"]) - {"global"} == set(value), path
        for name, inner in value.items():
            compare(schema["properties"][name], inner, f"{path}.{name}")

    compare(schema, values, "values")
