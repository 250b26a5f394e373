"""API keys: format, hashing, issuing, authentication, revocation.

A token is `dsf_<public id>_<secret>_<checksum>` (`dsa_` for platform admins), all in base 62. The
public id finds the row; the secret is 32 random bytes; the checksum lets a typo be refused without
asking the database. Only HMAC-SHA256(pepper, token) is stored. Called by the gateway's and the REST
API's authentication.
"""

import hashlib
import hmac
import re
import secrets
import string
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.tenants import projects
from controlplane.tenants.models import AdminKey, ApiKey, Tenant

KeyKind = Literal["dsf", "dsa"]

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PUBLIC_ID_CHARS = 16
_SECRET_BYTES = 32
_SECRET_CHARS = 43  # 62**43 > 2**256
_CHECKSUM_CHARS = 6  # 62**6 > 2**32
_TOKEN = re.compile(
    rf"(dsf|dsa)_([0-9A-Za-z]{{{_PUBLIC_ID_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS}}}"
    rf"_([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})"
)
_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed token; says nothing of whether such a key exists."""

    kind: KeyKind
    public_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: proven by a live key of an active tenant."""

    tenant_id: uuid.UUID
    project_id: uuid.UUID
    api_key_id: uuid.UUID


def parse(token: str) -> ParsedKey | None:
    """Return the parts of a well-formed token with a right checksum, else None."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    body, checksum = token[: -_CHECKSUM_CHARS - 1], match[3]
    if _checksum(body) != checksum:
        return None
    return ParsedKey(kind="dsf" if match[1] == "dsf" else "dsa", public_id=match[2], token=token)


def issue(
    session: Session,
    pepper: bytes,
    *,
    tenant_id: uuid.UUID,
    name: str,
    project_id: uuid.UUID | None = None,
) -> tuple[ApiKey, str]:
    """Make a key of a tenant's project, the default one unless told; the token is returned here
    and never again.

    Raises:
        NotFound: no such tenant, or no such project of it.
    """
    if session.get(Tenant, tenant_id) is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    project = projects.get(session, tenant_id=tenant_id, project_id=project_id)
    parsed = _new_token("dsf")
    key = ApiKey(
        tenant_id=tenant_id,
        project_id=project.id,
        public_id=parsed.public_id,
        digest=_digest(pepper, parsed.token),
        name=name,
    )
    session.add(key)
    session.flush()
    return key, parsed.token


def issue_admin(session: Session, pepper: bytes, *, name: str) -> tuple[AdminKey, str]:
    """Make a platform admin's key; the token is returned here and never again."""
    parsed = _new_token("dsa")
    key = AdminKey(public_id=parsed.public_id, digest=_digest(pepper, parsed.token), name=name)
    session.add(key)
    session.flush()
    return key, parsed.token


def authenticate(session: Session, pepper: bytes, token: str) -> Principal | None:
    """Return who holds `token`; None when unknown, revoked, or the tenant is suspended."""
    parsed = parse(token)
    if parsed is None or parsed.kind != "dsf":
        return None
    row = session.execute(
        select(ApiKey.tenant_id, ApiKey.project_id, ApiKey.id, ApiKey.digest)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(
            ApiKey.public_id == parsed.public_id,
            ApiKey.revoked_at.is_(None),
            Tenant.status == "active",
        )
    ).one_or_none()
    # An unknown id costs the same work as a wrong secret, so that time tells nothing.
    if not hmac.compare_digest(_digest(pepper, token), row.digest if row else _NO_DIGEST):
        return None
    assert row is not None
    return Principal(tenant_id=row.tenant_id, project_id=row.project_id, api_key_id=row.id)


def authenticate_admin(session: Session, pepper: bytes, token: str) -> AdminKey | None:
    """Return the admin key that `token` proves; None when unknown or revoked."""
    parsed = parse(token)
    if parsed is None or parsed.kind != "dsa":
        return None
    key = session.scalar(
        select(AdminKey).where(
            AdminKey.public_id == parsed.public_id, AdminKey.revoked_at.is_(None)
        )
    )
    if not hmac.compare_digest(_digest(pepper, token), key.digest if key else _NO_DIGEST):
        return None
    return key


def listing(session: Session, *, tenant_id: uuid.UUID) -> list[ApiKey]:
    """Return a tenant's keys, oldest first, revoked ones too."""
    return list(
        session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant_id).order_by(ApiKey.id))
    )


def revoke(session: Session, *, key_id: uuid.UUID, tenant_id: uuid.UUID | None = None) -> ApiKey:
    """Make a key useless for ever; doing it twice is once. `tenant_id` None: any tenant's key.

    Raises:
        NotFound: no such key, or another tenant's.
    """
    key = session.get(ApiKey, key_id, with_for_update=True)
    if key is None or (tenant_id is not None and key.tenant_id != tenant_id):
        raise NotFound(f"There is no key {key_id}.")
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        session.flush()
    return key


def _new_token(kind: KeyKind) -> ParsedKey:
    public_id = "".join(secrets.choice(_ALPHABET) for _ in range(_PUBLIC_ID_CHARS))
    secret = _base62(int.from_bytes(secrets.token_bytes(_SECRET_BYTES)), _SECRET_CHARS)
    body = f"{kind}_{public_id}_{secret}"
    return ParsedKey(kind=kind, public_id=public_id, token=f"{body}_{_checksum(body)}")


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARS)


def _base62(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    assert value == 0
    return "".join(reversed(digits))


def _digest(pepper: bytes, token: str) -> bytes:
    assert pepper, "the pepper is empty"
    return hmac.digest(pepper, token.encode(), "sha256")
