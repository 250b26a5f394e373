"""The pepper and the first keys, kept in one private file; called by `up` and the command line."""

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from controlplane.processes.files import read_json, write_json
from controlplane.supervisor.errors import SupervisorError
from controlplane.tenants.models import AdminKey, ApiKey

PEPPER_BYTES = 32


@dataclass(frozen=True)
class Secrets:
    """What must not be lost. Empty strings are what is not known."""

    key_pepper: str = ""
    api_key: str = ""
    admin_key: str = ""

    def save(self, path: Path) -> None:
        """Replace the file."""
        write_json(path, asdict(self))


def read_secrets(path: Path) -> Secrets:
    """Return what the file holds; nothing known when there is no file.

    Raises:
        SupervisorError: the file is damaged.
    """
    fix = "put a copy of it back; to lose all data instead, run `flashplane up --fresh`"
    return read_json(path, Secrets, fix=fix) or Secrets()


def ensure_pepper(session: Session, path: Path, configured: str) -> Secrets:
    """Return the secrets with a pepper: the configured, the kept, or on a first start a new one.

    Raises:
        SupervisorError: the pepper is gone, but there are keys that were hashed with it.
    """
    kept = read_secrets(path)
    pepper = configured or kept.key_pepper
    if not pepper:
        if session.scalar(select(exists().select_from(ApiKey) | exists().select_from(AdminKey))):
            raise SupervisorError(
                f"The database holds API keys, but the pepper they were hashed with is gone: put "
                f"{path} back or set FLASHPLANE_KEY_PEPPER to it; to lose all data instead, run "
                "`flashplane up --fresh`."
            )
        pepper = secrets.token_hex(PEPPER_BYTES)
    complete = Secrets(pepper, kept.api_key, kept.admin_key)
    if complete != kept:
        complete.save(path)
    return complete
