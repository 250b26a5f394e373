"""Commands that need no running product: help, version, doctor, and how they fail."""

import json
import re
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from support.ports import free_port
from typer.testing import CliRunner, Result

from controlplane.cli.commands import app
from controlplane.cli.doctor import examine
from controlplane.settings import Settings
from controlplane.supervisor.ports import check_port


def run(*arguments: str, data_dir: Path, **environment: str) -> Result:
    settings = {"FLASHPLANE_DATA_DIR": str(data_dir), "DATABASE_URL": "", "REDIS_URL": ""}
    return CliRunner().invoke(app, list(arguments), env=settings | environment)


def test_the_version_is_told(tmp_path: Path) -> None:
    result = run("--version", data_dir=tmp_path)
    assert (result.exit_code, result.output) == (0, f"flashplane {version('flashplane')}\n")


def test_help_teaches_with_examples(tmp_path: Path) -> None:
    output = run("--help", data_dir=tmp_path).output
    assert re.search(r"^ +flashplane up --detach ", output, re.MULTILINE)
    assert re.search(r"^ +flashplane top-up acme 25$", output, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        *("up", "down", "status", "gateway", "api", "jobs", "beat", "migrate", "config", "doctor"),
        *(
            "tenants create",
            "tenants list",
            "tenants suspend",
            "tenants activate",
            "tenants delete",
        ),
        *("keys create", "keys list", "keys revoke"),
        *(f"prices {it}" for it in ("list", "publish", "preview", "show", "calendars", "import")),
        *(
            "top-up",
            "balance",
            "usage",
            "ledger",
            "ledger export",
            "ledger hash",
            "books",
            "restore",
        ),
        *(f"deployments {it}" for it in ("create", "list", "show", "set", "stop", "start")),
        *(f"deployments {it}" for it in ("delete", "events", "usage", "configurations")),
        *("gpu-prices list", "gpu-prices publish"),
        *("storage-prices list", "storage-prices publish"),
        *(f"invoices {it}" for it in ("list", "show", "preview", "download", "pay")),
        *(f"rejected {it}" for it in ("list", "retry", "write-off")),
        *(f"credit {it}" for it in ("grant", "refund", "waive", "note", "adjust", "terms")),
    ],
)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    result = run(*command.split(), "--help", data_dir=tmp_path)
    assert result.exit_code == 0
    assert "Usage: flashplane" in result.output.replace("root", "flashplane")


@pytest.mark.parametrize("command", ["gateway", "api", "jobs", "beat"])
def test_a_process_without_settings_says_which_to_set(command: str, tmp_path: Path) -> None:
    result = run(command, data_dir=tmp_path)
    assert result.exit_code == 1
    assert result.output.startswith("error: Set DATABASE_URL, REDIS_URL, FLASHPLANE_KEY_PEPPER;")


def test_migrate_needs_a_database(tmp_path: Path) -> None:
    result = run("migrate", data_dir=tmp_path)
    assert (result.exit_code, "Set DATABASE_URL" in result.output) == (1, True)


def test_migrate_migrates(tmp_path: Path, database_url: str) -> None:
    result = run("migrate", data_dir=tmp_path, DATABASE_URL=database_url)
    assert (result.exit_code, result.output) == (0, "The schema is current.\n")


def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    result = run("config", data_dir=tmp_path, FLASHPLANE_MAX_BODY_BYTES="many")
    assert result.exit_code == 1
    assert "error: the setting MAX_BODY_BYTES is not valid" in result.output


@pytest.mark.parametrize("command", ["books", "tenants list", "usage"])
def test_admin_commands_without_a_product_say_what_to_do(command: str, tmp_path: Path) -> None:
    result = run(*command.split(), data_dir=tmp_path)
    assert result.exit_code == 1
    assert result.output.startswith("error: No admin API is known: run `flashplane up`")


def test_an_admin_api_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    gone = {"FLASHPLANE_ADMIN_URL": "http://127.0.0.1:9", "FLASHPLANE_ADMIN_KEY": "dsa_x"}
    result = run("books", data_dir=tmp_path, **gone)
    assert result.exit_code == 1
    assert "does not answer" in result.output


def test_doctor_names_a_taken_port_and_the_flag(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 8001), reuse_port=True):
        result = run("doctor", "--json", data_dir=tmp_path)
    findings = {finding["check"]: finding for finding in json.loads(result.output)}
    assert result.exit_code == 1
    assert not findings["Port 8001"]["ok"]
    assert "--admin-port" in findings["Port 8001"]["fix"]
    assert findings["PostgreSQL"]["ok"]
    assert findings["Valkey"]["ok"]


def test_doctor_finds_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    findings = {it.check: it for it in examine(Settings(data_dir=Path("/proc/nowhere")))}
    assert not findings["Disk"].ok or not findings["Data folder"].ok
    assert findings["Platform"].ok


def test_free_ports_are_free_for_doctor_and_up_alike() -> None:
    check_port("127.0.0.1", free_port(), flag="--port", purpose="gateway")
