"""`flashplane deployments | gpu-prices` against a served admin API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, commanding
from support.orders import stock
from support.shop import Shop

from controlplane.cli.deployments import fields_of
from controlplane.errors import StartupError


@pytest.fixture
def command(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Command]:
    with shop.sessions.begin() as session:
        stock(session)
    with commanding(shop, database_url, tmp_path) as command:
        yield command


def create(command: Command, *arguments: str) -> Any:
    engine = ("--configuration", "h200-x4", "--set", "engine.name=vllm")
    return command.ask("deployments", "create", "bot", *engine, *arguments)


def test_a_deployments_whole_life(command: Command) -> None:
    assert create(command, "--tenant", command.tenant)["spec"]["replicas"] == 1
    (listed,) = command.ask("deployments", "list")
    assert (listed["name"], listed["path"]) == ("bot", "dedicated")
    changed = command.ask(
        "deployments", "set", "bot", "replicas=", "scaling.min=1", "scaling.max=4"
    )
    assert (changed["spec"]["scaling"]["max"], "replicas" in changed["spec"]) == (4, False)
    assert command.ask("deployments", "stop", "bot")["spec"]["stopped"] is True
    assert command.ask("deployments", "start", "bot")["spec"]["stopped"] is False
    assert command.ask("deployments", "usage", "bot") == []
    assert command.ask("deployments", "events", "bot") == []
    assert command.ask("deployments", "delete", "bot")["state"] == "deleting"


def test_a_dry_run_orders_nothing(command: Command) -> None:
    told = create(command, "--tenant", command.tenant, "--dry-run")
    assert told["replica_usd_per_hour"] == "20.00"
    assert command.ask("deployments", "list") == []


def test_a_pool_is_made_of_a_file(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("spec:\n  budgetGPUs: 8\n  scaling: {max: 2}\n")
    made = create(command, "--file", str(file), "--set", "scaling.min=1")
    assert (made["path"], made["spec"]["budgetGPUs"]) == ("serverless", 8)
    assert (made["spec"]["scaling"]["min"], made["spec"]["scaling"]["max"]) == (1, 2)


def test_a_bare_endpoint_is_stopped_by_its_state(command: Command) -> None:
    order = ("--tenant", command.tenant, "--bare", "--configuration", "rtx-4090")
    command.ask("deployments", "create", "lab", *order)
    assert command.ask("deployments", "stop", "lab")["spec"]["state"] == "Stopped"
    shown = command.run("deployments", "show", "lab").output
    assert "scalingAndRuntime: customer" in shown


def test_prices_and_configurations_are_listed(command: Command) -> None:
    published = command.ask("gpu-prices", "publish", "h200-x4", "19.36", "--spot")
    assert (published["kind"], published["usd_per_hour"]) == ("spot", "19.36")
    assert command.ask("gpu-prices", "list")[-1] == published
    listed = command.ask("deployments", "configurations")
    assert [it["id"] for it in listed] == ["h200-x4", "h200-x4-spot", "rtx-4090"]


def test_refusals_are_sentences(command: Command, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("{")
    for arguments, words in (
        (("show", "nobody"), "There is no deployment 'nobody'"),
        (("create", "x", "--set", "replicas"), "is no field=value"),
        (("create", "x", "--file", str(wrong)), "is not YAML"),
        (("create", "x", "--configuration", "h200-x4", "--set", "nonsense=1"), "spec.nonsense"),
        (("create", "x", "--configuration", "h200-x4", "--set", "scaling=NaN"), "spec.scaling"),
    ):
        result = command.run("deployments", *arguments)
        assert result.exit_code == 1, arguments
        assert words in result.output
        assert "Traceback" not in result.output


def test_fields_become_a_merge_patch() -> None:
    words = ["a.b=1", "a.c=true", "d=text", 'e=["x"]', "f="]
    assert fields_of(words) == {"a": {"b": 1, "c": True}, "d": "text", "e": ["x"], "f": None}
    with pytest.raises(StartupError, match="contradicts"):
        fields_of(["a=1", "a.b=2"])
