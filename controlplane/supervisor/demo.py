"""What a first start puts into an empty database: a price, a tenant with a balance, two keys.

Every step can be repeated: a start that died half-way is finished by the next. A key whose token
was lost is replaced and revoked. Called by `up`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.accounts import ledger, opening
from controlplane.errors import ModelNotFound
from controlplane.money import usd_per_million_to_rate_p, usd_to_p
from controlplane.pricing import book, gpu
from controlplane.pricing.drafts import SERVERLESS
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.local_cluster import CPU_TINY
from controlplane.supervisor.secret_file import Secrets
from controlplane.supervisor.services import MODEL
from controlplane.tenants import keys, tenants
from controlplane.tenants.models import AdminKey, ApiKey, Tenant

TENANT = "demo"
KEY_NAME = "demo"
BALANCE_USD = "100"
# DeepSeek's list prices, USD per million tokens.
HIT_USD, MISS_USD, OUTPUT_USD = "0.0028", "0.14", "0.28"


def ensure_demo(
    session: Session, secrets: Secrets, say: Callable[[str], None], *, previous: bytes = b""
) -> Secrets:
    """Make what is missing and return the secrets with working keys.

    Raises:
        SupervisorError: the keys were hashed with another pepper.
    """
    pepper = secrets.key_pepper.encode()
    # Proving them hashes them anew, should the pepper be a new one.
    keys.authenticate(session, pepper, secrets.api_key, previous=previous)
    keys.authenticate_admin(session, pepper, secrets.admin_key, previous=previous)
    _ensure_price(session)
    _ensure_gpu_price(session)
    tenant = _ensure_tenant(session, say)
    secrets = _ensure_api_key(session, secrets, tenant, say)
    return _ensure_admin_key(session, secrets, say)


def _ensure_price(session: Session) -> None:
    now = datetime.now(UTC)
    try:
        book.current_for(session, None).price(MODEL, SERVERLESS, now)
    except ModelNotFound:
        book.publish(
            session,
            model=MODEL,
            hit_rate_p=usd_per_million_to_rate_p(HIT_USD),
            miss_rate_p=usd_per_million_to_rate_p(MISS_USD),
            output_rate_p=usd_per_million_to_rate_p(OUTPUT_USD),
            effective_from=now - timedelta(minutes=1),
        )


def _ensure_gpu_price(session: Session) -> None:
    now = datetime.now(UTC)
    if gpu.rate_p_per_hour(session, configuration=CPU_TINY.id, spot=False, at=now) is None:
        gpu.publish(
            session,
            configuration=CPU_TINY.id,
            kind="on_demand",
            rate_p_per_hour=usd_to_p(str(CPU_TINY.hourly_usd)),
        )


def _ensure_tenant(session: Session, say: Callable[[str], None]) -> Tenant:
    tenant = session.scalar(select(Tenant).where(Tenant.name == TENANT))
    if tenant is None:
        tenant = opening.create_tenant(session, name=TENANT)
        ledger.top_up(
            session,
            tenant_id=tenant.id,
            amount_p=usd_to_p(BALANCE_USD),
            reason="balance of the demo tenant",
            author="flashplane up",
            idempotency_key="demo-balance",
        )
    if tenant.status != "active":
        tenants.set_status(session, tenant_id=tenant.id, status="active")
        say(f"The tenant {TENANT!r} was suspended; it is active again, `up` proves itself with it")
    return tenant


def _ensure_api_key(
    session: Session, secrets: Secrets, tenant: Tenant, say: Callable[[str], None]
) -> Secrets:
    pepper = secrets.key_pepper.encode()
    if secrets.api_key and keys.authenticate(session, pepper, secrets.api_key):
        return secrets
    live = select(ApiKey).where(
        ApiKey.tenant_id == tenant.id, ApiKey.name == KEY_NAME, ApiKey.revoked_at.is_(None)
    )
    for lost in session.scalars(live).all():
        _refuse_other_pepper(secrets.api_key, lost.public_id)
        keys.revoke(session, key_id=lost.id)
        say("The demo tenant's key was lost: it is revoked, a new one takes its place")
    _, token = keys.issue(session, pepper, tenant_id=tenant.id, name=KEY_NAME)
    return replace(secrets, api_key=token)


def _ensure_admin_key(session: Session, secrets: Secrets, say: Callable[[str], None]) -> Secrets:
    pepper = secrets.key_pepper.encode()
    if secrets.admin_key and keys.authenticate_admin(session, pepper, secrets.admin_key):
        return secrets
    live = select(AdminKey).where(AdminKey.name == KEY_NAME, AdminKey.revoked_at.is_(None))
    for lost in session.scalars(live).all():
        _refuse_other_pepper(secrets.admin_key, lost.public_id)
        lost.revoked_at = datetime.now(UTC)
        say("The admin key was lost: it is revoked, a new one takes its place")
    _, token = keys.issue_admin(session, pepper, name=KEY_NAME)
    return replace(secrets, admin_key=token)


def _refuse_other_pepper(token: str, live_public_id: str) -> None:
    """A key that is known and not revoked, yet not proven, was hashed with another pepper."""
    parsed = keys.parse(token)
    if parsed is not None and parsed.public_id == live_public_id:
        raise SupervisorError(
            "The keys in the database were hashed with another pepper: set FLASHPLANE_KEY_PEPPER "
            "to the one they were made with, or unset it to use the one in the secrets file; to "
            "lose all data instead, run `flashplane up --fresh`."
        )
