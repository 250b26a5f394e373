"""The first admin key is made in the database and opens the admin API."""

from fastapi.testclient import TestClient
from pydantic import SecretStr
from typer.testing import CliRunner

from controlplane.api.app import create_admin_app
from controlplane.cli.commands import app
from controlplane.settings import Settings

PEPPER = "pepper of this test"


def test_a_made_key_opens_the_admin_api(database_url: str, redis_url: str) -> None:
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLASHPLANE_KEY_PEPPER": PEPPER,
    }
    result = CliRunner().invoke(app, ["admin-key", "ops"], env=environment)
    assert result.exit_code == 0
    token = result.output.strip()
    assert token.startswith("dsa_")
    settings = Settings(DATABASE_URL=database_url, key_pepper=SecretStr(PEPPER))
    with TestClient(create_admin_app(settings)) as client:
        answer = client.get("/admin/v1/tenants", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
