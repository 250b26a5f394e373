"""`flashplane config`: complete, and silent about secrets."""

from pathlib import Path

from controlplane.cli.configuration import MASK, setting_rows
from controlplane.settings import Settings


def row(settings: Settings, name: str) -> dict[str, str]:
    return next(row for row in setting_rows(settings) if row["name"] == name)


def test_every_setting_is_there_with_its_meaning() -> None:
    rows = setting_rows(Settings())
    assert len(rows) == len(Settings.model_fields)
    assert all(row["meaning"] for row in rows)
    assert {"DATABASE_URL", "REDIS_URL", "FLASHPLANE_DATA_DIR"} <= {row["name"] for row in rows}


def test_a_value_is_shown_beside_its_default() -> None:
    shown = row(Settings(data_dir=Path("/srv")), "FLASHPLANE_DATA_DIR")
    assert (shown["value"], shown["default"]) == ("/srv", ".flashplane")


def test_secrets_are_masked() -> None:
    settings = Settings.model_validate(
        {
            "key_pepper": "salty",
            "admin_key": "dsa_secret",
            "DATABASE_URL": "postgresql://anna:hunter2@db/flashplane",
            "REDIS_URL": "redis://:hunter2@cache:6379/0",
        }
    )
    assert row(settings, "FLASHPLANE_KEY_PEPPER")["value"] == MASK
    assert row(settings, "DATABASE_URL")["value"] == f"postgresql://anna:{MASK}@db/flashplane"
    assert row(settings, "REDIS_URL")["value"] == f"redis://:{MASK}@cache:6379/0"
    shown = str(setting_rows(settings))
    assert not any(secret in shown for secret in ("salty", "dsa_secret", "hunter2"))


def test_an_unset_secret_is_empty() -> None:
    assert row(Settings(), "FLASHPLANE_ADMIN_KEY")["value"] == ""
