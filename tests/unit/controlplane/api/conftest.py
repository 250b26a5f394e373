"""The REST apps on a fresh database, called in process."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient
from support.shop import PEPPER, Shop

from controlplane.api.app import create_admin_app, create_tenant_app
from controlplane.settings import Settings
from controlplane.tenants import keys


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(DATABASE_URL=database_url, key_pepper=SecretStr(PEPPER.decode()))


@pytest.fixture
def admin_key(shop: Shop) -> str:
    with shop.sessions.begin() as session:
        return keys.issue_admin(session, PEPPER, name="root")[1]


@pytest.fixture
def admin_app(settings: Settings) -> FastAPI:
    return create_admin_app(settings)


@pytest.fixture
def tenant_app(settings: Settings) -> FastAPI:
    return create_tenant_app(settings)


@pytest.fixture
def admin(admin_app: FastAPI, admin_key: str) -> Iterator[TestClient]:
    with TestClient(
        admin_app, headers={"authorization": f"Bearer {admin_key}"}, raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture
def as_tenant(tenant_app: FastAPI) -> Iterator[Callable[[str], TestClient]]:
    """Return a client that calls with the given token."""
    with TestClient(tenant_app):
        yield lambda token: TestClient(
            tenant_app,
            headers={"authorization": f"Bearer {token}"},
            raise_server_exceptions=False,
        )
