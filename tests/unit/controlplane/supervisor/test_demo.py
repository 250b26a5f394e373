"""What a first start makes, and how it heals, on a real database."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.accounts import ledger
from controlplane.billing.books import check_books
from controlplane.db import open_engine, session_factory
from controlplane.money import usd_to_p
from controlplane.supervisor.demo import ensure_demo
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.secret_file import Secrets, ensure_pepper, read_secrets
from controlplane.tenants import keys, tenants
from controlplane.tenants.models import AdminKey, ApiKey, Tenant


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    engine = open_engine(database_url, pool_size=1)
    with session_factory(engine).begin() as session:
        yield session
    engine.dispose()


def quiet(line: str) -> None:
    raise AssertionError(f"nothing to tell, but: {line}")


def first(session: Session) -> Secrets:
    return ensure_demo(session, Secrets(key_pepper="pepper"), quiet)


def test_a_first_start_makes_a_tenant_that_can_pay(session: Session) -> None:
    secrets = first(session)
    principal = keys.authenticate(session, b"pepper", secrets.api_key)
    assert principal is not None
    balance = ledger.balance(session, tenant_id=principal.tenant_id)
    assert balance.available_p == usd_to_p("100")
    assert keys.authenticate_admin(session, b"pepper", secrets.admin_key) is not None
    assert check_books(session).violations == []


def test_repeating_changes_nothing(session: Session) -> None:
    secrets = first(session)
    assert ensure_demo(session, secrets, quiet) == secrets
    for table in (Tenant, ApiKey, AdminKey):
        assert session.scalar(select(func.count()).select_from(table)) == 1


def test_lost_keys_are_revoked_and_replaced(session: Session) -> None:
    lost = first(session)
    said: list[str] = []
    again = ensure_demo(session, replace(lost, api_key="", admin_key=""), said.append)
    assert len(said) == 2
    assert keys.authenticate(session, b"pepper", lost.api_key) is None
    assert keys.authenticate_admin(session, b"pepper", lost.admin_key) is None
    assert keys.authenticate(session, b"pepper", again.api_key) is not None
    assert keys.authenticate_admin(session, b"pepper", again.admin_key) is not None


def test_a_key_its_owner_revoked_is_replaced(session: Session) -> None:
    secrets = first(session)
    principal = keys.authenticate(session, b"pepper", secrets.api_key)
    assert principal is not None
    keys.revoke(session, key_id=principal.api_key_id)
    again = ensure_demo(session, secrets, quiet)
    assert keys.authenticate(session, b"pepper", again.api_key) is not None


def test_another_pepper_is_refused_before_anything_is_revoked(session: Session) -> None:
    secrets = first(session)
    with pytest.raises(SupervisorError, match="another pepper: set FLASHPLANE_KEY_PEPPER"):
        ensure_demo(session, replace(secrets, key_pepper="other"), quiet)
    assert keys.authenticate(session, b"pepper", secrets.api_key) is not None


def test_a_suspended_demo_tenant_is_let_in_again(session: Session) -> None:
    secrets = first(session)
    tenant = session.scalars(select(Tenant)).one()
    tenants.set_status(session, tenant_id=tenant.id, status="suspended")
    said: list[str] = []
    assert ensure_demo(session, secrets, said.append) == secrets
    assert "suspended" in said[0]


def test_a_new_pepper_is_kept_before_it_is_used(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    secrets = ensure_pepper(session, path, configured="")
    assert len(secrets.key_pepper) == 64
    assert read_secrets(path) == secrets
    assert ensure_pepper(session, path, configured="") == secrets


def test_a_configured_pepper_wins(session: Session, tmp_path: Path) -> None:
    assert ensure_pepper(session, tmp_path / "secrets", "mine").key_pepper == "mine"


def test_a_lost_pepper_is_not_replaced_while_keys_depend_on_it(
    session: Session, tmp_path: Path
) -> None:
    first(session)
    with pytest.raises(SupervisorError, match="the pepper they were hashed with is gone"):
        ensure_pepper(session, tmp_path / "secrets", configured="")
    assert not (tmp_path / "secrets").exists()
