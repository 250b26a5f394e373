"""Images and the compose file: nobody is root, nothing is resolved while building."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from controlplane.cli.commands import app
from controlplane.settings import Settings

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
THEIRS = {"postgres"}  # drops its rights by itself


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_run_as_nobody_in_particular(file: Path) -> None:
    final = file.read_text().split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_hold_what_the_lock_says_and_no_tools(file: Path) -> None:
    text = file.read_text()
    assert "--no-deps --require-hashes --requirement" in text
    final = text.split("\nFROM ")[-1]
    assert "pip install" not in final
    assert "apt-get" not in final
    assert "pip uninstall --yes pip" in final


def test_containers_are_hardened() -> None:
    for name, service in COMPOSE["services"].items():
        if name in THEIRS:
            continue
        assert service["cap_drop"] == ["ALL"], name
        if name != "owner-of-volumes":
            assert service["read_only"] is True, name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_only_loopback_is_published() -> None:
    for service in COMPOSE["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_no_secret_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert "${POSTGRES_PASSWORD:?" in text
    assert "${FLASHPLANE_KEY_PEPPER:?" in text


def test_the_composed_settings_exist() -> None:
    known = {"DATABASE_URL", "REDIS_URL", "MODEL"} | {
        f"FLASHPLANE_{name.upper()}" for name in Settings.model_fields
    }
    for name, service in COMPOSE["services"].items():
        if name not in THEIRS:
            assert service.get("environment", {}).keys() <= known, name


def test_what_compose_leaves_empty_is_read_as_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPOSE["services"]["jobs"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", r"\1", value))
    composed, shipped = Settings(), Settings.model_construct()
    for name in ("oidc_issuer", "seller_name", "invoice_series", "usage_retention_days"):
        assert getattr(composed, name) == getattr(shipped, name), name
    assert composed.payment_webhook_secrets == ()
    assert composed.audit_anchor_file is not None


def test_the_composed_commands_exist() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, service in COMPOSE["services"].items():
        command = service.get("command", [""])
        if command[0] == "flashplane":
            assert command[1] in known, name
