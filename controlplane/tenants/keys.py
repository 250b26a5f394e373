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
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import ColumnElement, case, func, or_, select, union_all, update
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, Forbidden, NotFound, UnprocessableRequest
from controlplane.tenants import projects, tenants
from controlplane.tenants.models import AdminKey, ApiKey, Project, Tenant

AnyKey = TypeVar("AnyKey", ApiKey, AdminKey)
KeyKind = Literal["dsf", "dsa"]
Scope = Literal["inference", "read", "manage", "own"]

# To ask engines; and on the REST API to be a viewer, a developer, an owner.
ALL_SCOPES: Final[tuple[Scope, ...]] = ("inference", "read", "manage", "own")
# How often a key's last use is written down, at most.
USE_TOLD_EVERY: Final = timedelta(minutes=1)
MAX_OVERLAP: Final = timedelta(days=30)

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PUBLIC_ID_CHARS = 16
_SECRET_BYTES = 32
_SECRET_CHARS = 43  # 62**43 > 2**256
_CHECKSUM_CHARS = 6  # 62**6 > 2**32
_TOKEN = re.compile(
    rf"(dsf|dsa)_([0-9A-Za-z]{{{_PUBLIC_ID_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS}}}"
    rf"_([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})"
)
_TABLES: tuple[type[ApiKey] | type[AdminKey], ...] = (ApiKey, AdminKey)
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
    scopes: frozenset[str]

    def may(self, scope: Scope) -> None:
        """Raises:
        Forbidden: the key does not have `scope`.
        """
        if scope not in self.scopes:
            raise Forbidden(f"This API key does not have the scope {scope!r}.")


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
    scopes: Collection[str] = ALL_SCOPES,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key of a tenant's project, the default one unless told; the token is returned here
    and never again.

    Raises:
        NotFound: no such tenant, or no such project of it.
        Conflict: the project is archived, or the tenant deleted.
        UnprocessableRequest: it would have expired already.
    """
    tenants.living(session, tenant_id=tenant_id)
    _check_expiry(expires_at)
    project = projects.get(session, tenant_id=tenant_id, project_id=project_id)
    if project.archived_at is not None:
        raise Conflict(f"The project {project.name!r} is archived.", param="project_id")
    parsed = _new_token("dsf")
    key = ApiKey(
        tenant_id=tenant_id,
        project_id=project.id,
        public_id=parsed.public_id,
        digest=_digest(pepper, parsed.token),
        pepper_mark=pepper_mark(pepper),
        name=name,
        scopes=[scope for scope in ALL_SCOPES if scope in scopes],
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, parsed.token


def rotate(
    session: Session, pepper: bytes, *, key: ApiKey, overlap: timedelta
) -> tuple[ApiKey, str]:
    """Make the key that takes over from `key`, which lives on for `overlap` and not longer.

    Name, project, scopes, expiry and budgets are the same: what both spend while both live counts
    in one budget. Two keys of one line live at most: what has been
    replaced is not replaced again.

    Raises:
        Conflict: the key is revoked, expired, or replaced already.
        UnprocessableRequest: the overlap is longer than `MAX_OVERLAP`.
    """
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise UnprocessableRequest("An overlap is at most 30 days.", param="overlap_seconds")
    now = datetime.now(UTC)
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Conflict("This key is revoked or expired; make another one.")
    if key.replaced_by_id is not None:
        raise Conflict("This key has been replaced already: rotate the one that took over.")
    successor, token = issue(
        session,
        pepper,
        tenant_id=key.tenant_id,
        name=key.name,
        project_id=key.project_id,
        scopes=key.scopes,
        expires_at=key.expires_at,
    )
    successor.first_id = key.line_id
    key.replaced_by_id = successor.id
    key.expires_at = min(now + overlap, key.expires_at or now + overlap)
    session.flush()
    return successor, token


def issue_admin(
    session: Session,
    pepper: bytes,
    *,
    name: str,
    role: str = "admin",
    expires_at: datetime | None = None,
) -> tuple[AdminKey, str]:
    """Make a key for the platform's staff; the token is returned here and never again.

    Raises:
        UnprocessableRequest: it would have expired already.
    """
    _check_expiry(expires_at)
    parsed = _new_token("dsa")
    key = AdminKey(
        public_id=parsed.public_id,
        digest=_digest(pepper, parsed.token),
        pepper_mark=pepper_mark(pepper),
        name=name,
        role=role,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, parsed.token


def authenticate(
    session: Session, pepper: bytes, token: str, *, previous: bytes = b""
) -> Principal | None:
    """Return who holds `token`; None when unknown, revoked, expired, or when the tenant is
    suspended or the project archived. A key that only the `previous` pepper proves is hashed anew.
    """
    parsed = parse(token)
    if parsed is None or parsed.kind != "dsf":
        return None
    row = session.execute(
        select(
            *(ApiKey.tenant_id, ApiKey.project_id, ApiKey.id, ApiKey.scopes, ApiKey.digest),
            ApiKey.pepper_mark,
        )
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .join(Project, Project.id == ApiKey.project_id)
        .where(
            ApiKey.public_id == parsed.public_id,
            _lives(ApiKey),
            Tenant.status == "active",
            Project.archived_at.is_(None),
        )
    ).one_or_none()
    if not _proven(session, ApiKey, row, pepper, previous, token):
        return None
    assert row is not None
    return Principal(row.tenant_id, row.project_id, row.id, frozenset(row.scopes))


def authenticate_admin(
    session: Session, pepper: bytes, token: str, *, previous: bytes = b""
) -> AdminKey | None:
    """Return the admin key that `token` proves; None when unknown, revoked or expired. `previous`
    as in `authenticate`."""
    parsed = parse(token)
    if parsed is None or parsed.kind != "dsa":
        return None
    key = session.scalar(
        select(AdminKey).where(AdminKey.public_id == parsed.public_id, _lives(AdminKey))
    )
    return key if _proven(session, AdminKey, key, pepper, previous, token) else None


def by_pepper(session: Session, pepper: bytes) -> dict[str, int]:
    """Return how many live keys `pepper` has hashed (`current`), how many another has (`other`),
    and of how many that is not known, for they were not used since it is told (`unknown`)."""
    marks = union_all(
        *(select(table.pepper_mark.label("mark")).where(_lives(table)) for table in _TABLES)
    ).subquery()
    which = case(
        (marks.c.mark == pepper_mark(pepper), "current"),
        (marks.c.mark.is_(None), "unknown"),
        else_="other",
    )
    counted = session.execute(select(which, func.count()).group_by(which)).all()
    return {"current": 0, "other": 0, "unknown": 0} | {
        str(name): int(count) for name, count in counted
    }


def pepper_mark(pepper: bytes) -> str:
    """Return what tells peppers apart without telling them."""
    return hmac.digest(pepper, b"which pepper this is", "sha256")[:8].hex()


def _proven(
    session: Session,
    table: type[ApiKey] | type[AdminKey],
    key: Any,
    pepper: bytes,
    previous: bytes,
    token: str,
) -> bool:
    """Return whether `token` is the key's; see to it that the newest pepper has hashed it."""
    # An unknown id costs the same work as a wrong secret, so that time tells nothing.
    digest, stored = _digest(pepper, token), key.digest if key else _NO_DIGEST
    proven = hmac.compare_digest(digest, stored)
    if previous:
        proven |= hmac.compare_digest(_digest(previous, token), stored)
    if proven and key.pepper_mark != pepper_mark(pepper):
        session.execute(
            update(table)
            .where(table.id == key.id, table.digest == stored)
            .values(digest=digest, pepper_mark=pepper_mark(pepper)),
            execution_options={"synchronize_session": False},
        )
    return proven


def note_use(
    session: Session, table: type[ApiKey] | type[AdminKey], key_ids: Iterable[uuid.UUID]
) -> None:
    """Write down that keys were used just now, each at most once a minute.

    A key that somebody else is changing is passed over: its use is told the next time.
    """
    stale = datetime.now(UTC) - USE_TOLD_EVERY
    due = (
        select(table.id)
        .where(
            table.id.in_(list(key_ids)),
            or_(table.last_used_at.is_(None), table.last_used_at < stale),
        )
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(table).where(table.id.in_(due)).values(last_used_at=func.now()),
        execution_options={"synchronize_session": False},
    )


def listing(
    session: Session,
    *,
    tenant_id: uuid.UUID,
    after: uuid.UUID | None = None,
    limit: int | None = None,
) -> list[ApiKey]:
    """Return a tenant's keys, oldest first, revoked ones too, those after the id `after`."""
    query = select(ApiKey).where(ApiKey.tenant_id == tenant_id).order_by(ApiKey.id).limit(limit)
    if after is not None:
        query = query.where(ApiKey.id > after)
    return list(session.scalars(query))


def admin_listing(session: Session, *, after: uuid.UUID | None, limit: int) -> list[AdminKey]:
    """Return the staff's keys, oldest first, revoked ones too, those after the id `after`."""
    query = select(AdminKey).order_by(AdminKey.id).limit(limit)
    if after is not None:
        query = query.where(AdminKey.id > after)
    return list(session.scalars(query))


def get(
    session: Session,
    *,
    key_id: uuid.UUID,
    tenant_id: uuid.UUID | None = None,
    to_change: bool = False,
) -> ApiKey:
    """Return a key. `tenant_id` None: any tenant's key.

    Raises:
        NotFound: no such key, or another tenant's.
    """
    key = session.get(ApiKey, key_id, with_for_update=to_change)
    if key is None or (tenant_id is not None and key.tenant_id != tenant_id):
        raise NotFound(f"There is no key {key_id}.")
    return key


def get_admin(session: Session, *, key_id: uuid.UUID, to_change: bool = False) -> AdminKey:
    """Return a key of the staff.

    Raises:
        NotFound: no such key.
    """
    key = session.get(AdminKey, key_id, with_for_update=to_change)
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def revoke(session: Session, *, key_id: uuid.UUID, tenant_id: uuid.UUID | None = None) -> ApiKey:
    """Make a key useless for ever; doing it twice is once. `tenant_id` None: any tenant's key.

    Raises:
        NotFound: no such key, or another tenant's.
    """
    key = get(session, key_id=key_id, tenant_id=tenant_id, to_change=True)
    return _revoked(session, key)


def revoke_admin(session: Session, *, key_id: uuid.UUID) -> AdminKey:
    """Make a key of the staff useless for ever; doing it twice is once.

    Raises:
        NotFound: no such key.
    """
    return _revoked(session, get_admin(session, key_id=key_id, to_change=True))


def _revoked(session: Session, key: AnyKey) -> AnyKey:
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        session.flush()
    return key


def _lives(table: type[ApiKey] | type[AdminKey]) -> ColumnElement[bool]:
    return table.revoked_at.is_(None) & or_(
        table.expires_at.is_(None), table.expires_at > func.clock_timestamp()
    )


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise UnprocessableRequest("This moment is past.", param="expires_at")


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
