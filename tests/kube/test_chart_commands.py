"""What the chart runs and sets is what the command line and the settings know."""

import json
from typing import Any

import pytest
import typer
import yaml
from support import helm
from support.chart_values import MATRIX
from support.helm import of_kind, pod_templates, render

from controlplane.cli.commands import app
from controlplane.settings import Settings

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def containers() -> list[dict[str, Any]]:
    objects = render(values=MATRIX["of money"] | {"settings": {}})
    kept = [it["data"] for it in of_kind(objects, "ConfigMap") if "job.yaml" in it["data"]]
    replay = yaml.safe_load(kept[0]["job.yaml"])["spec"]["template"]
    return [
        container
        for pod in (*pod_templates(objects).values(), replay)
        for container in pod["spec"]["containers"]
    ]


def commands() -> list[list[str]]:
    found = [it["command"] for it in containers()]
    return [command for command in found if command[0] == "flashplane"]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[1])
def test_every_command_exists_with_its_options(command: list[str]) -> None:
    _, name, *words = command
    assert name in COMMANDS
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_variable_is_a_setting() -> None:
    ours = {"DATABASE_URL", "REDIS_URL"} | {
        f"FLASHPLANE_{name.upper()}" for name in Settings.model_fields
    }
    given = {env["name"] for container in containers() for env in container.get("env", ())}
    assert given - {"POD_NAME", "POD_NAMESPACE"} <= ours


def test_the_values_own_example_of_a_setting_is_one() -> None:
    text = (helm.CHART / "values.yaml").read_text()
    assert "`log_level: DEBUG`" in text
    assert "log_level" in Settings.model_fields


def test_settings_are_those_that_nothing_else_decides() -> None:
    """One that the chart sets itself would be there twice, and the API server refuses that."""
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    allowed = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    given = {env["name"] for container in containers() for env in container.get("env", ())}
    of_the_chart = {name.removeprefix("FLASHPLANE_").lower() for name in given}
    secrets = {"admin_key"}
    of_one_machine = {"data_dir", "admin_url", "log_dir", "kubeconfig", "webhooks_to_loopback"}
    assert allowed == Settings.model_fields.keys() - of_the_chart - secrets - of_one_machine


def test_large_numbers_of_settings_stay_whole() -> None:
    rendered = render(values={"settings": {"max_body_bytes": 8388608, "hold_silence_seconds": 2.5}})
    (api,) = [it for name, it in pod_templates(rendered).items() if name.endswith("-api")]
    given = {it["name"]: it.get("value") for it in api["spec"]["containers"][0]["env"]}
    assert given["FLASHPLANE_MAX_BODY_BYTES"] == "8388608"
    assert given["FLASHPLANE_HOLD_SILENCE_SECONDS"] == "2.5"
