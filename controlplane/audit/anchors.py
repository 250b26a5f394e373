"""Signed lines outside the database that vouch for how far each chain had come.

Whoever can write to the database can rewrite a chain from any event on, hashes and all, or cut its
end. A line here then tells: it names the last event of every chain that grew since the last line.
The file only grows, each line hashes the one before, and is signed with Ed25519. Copy it where the
database's administrators do not come. Written hourly by the jobs, read by `audit verify`.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane.audit.models import AuditEvent
from controlplane.errors import StartupError
from controlplane.metrics import AUDIT_ANCHORED_AT

BEGINNING = "0" * 64

# Of each chain: its last event's seq, and that event's hash in hex.
Heads = dict[str, tuple[int, str]]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    at: str
    heads: Heads
    previous: str  # SHA-256 of the line before, in hex
    key: str  # the public key, in hex
    signature: str = ""

    def signed_part(self) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self, signature=""), order="sorted")


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a file vouches for: the hash of events by chain and seq, and who signed it."""

    vouched: Mapping[uuid.UUID, Mapping[int, bytes]]
    public_key: str
    findings: tuple[str, ...]


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the signing key in `path`, made when there is none; readable by its owner alone.

    Raises:
        StartupError: it cannot be read or made.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise StartupError(
            f"The audit key {path} cannot be used ({type(error).__name__}): put a copy of it back,"
            " or point FLASHPLANE_AUDIT_KEY_FILE at another."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StartupError(f"The audit key {path} is not an Ed25519 key.")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half of a signing key, as lines and `audit verify` spell it."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def append(session: Session, file: Path, key: Ed25519PrivateKey) -> int:
    """Add a line about every chain that grew; return how many did. Durable when this returns.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "r+b") as anchors:
        fcntl.flock(anchors, fcntl.LOCK_EX)
        lines = anchors.read().splitlines()
        known = _latest(lines)
        grown = {chain: head for chain, head in _heads(session) if known.get(chain) != head}
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else BEGINNING
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = _Line(at=at, heads=grown, previous=previous, key=public_hex(key))
        line.signature = key.sign(line.signed_part()).hex()
        torn = bool(lines) and not _ends_whole(file)
        anchors.write((b"\n" if torn else b"") + msgspec.json.encode(line) + b"\n")
        anchors.flush()
        os.fsync(anchors.fileno())
    AUDIT_ANCHORED_AT.set_to_current_time()
    return len(grown)


def read(file: Path, *, public_key: str | None) -> Anchors:
    """Return what a file vouches for, and what is wrong with the file itself.

    Args:
        public_key: the only signer that is trusted, in hex; None trusts the first line's.

    Raises:
        StartupError: the file cannot be read.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise StartupError(f"The anchors {file} cannot be read ({error.strerror}).") from error
    vouched: dict[uuid.UUID, dict[int, bytes]] = {}
    findings: list[str] = []
    previous, trusted = BEGINNING, public_key or ""
    for number, content in enumerate(lines, start=1):
        line = _decoded(content)
        trusted = trusted or (line.key if line else "")
        wrong = _fault(line, previous, trusted)
        if wrong:
            findings.append(f"{file}, line {number}: {wrong}")
        elif line:
            for chain, (seq, digest) in line.heads.items():
                vouched.setdefault(uuid.UUID(chain), {})[seq] = bytes.fromhex(digest)
        previous = hashlib.sha256(content).hexdigest()
    return Anchors(vouched, trusted, tuple(findings))


def _fault(line: _Line | None, previous: str, trusted: str) -> str | None:
    if line is None:
        return "damaged"
    if line.key != trusted:
        return "signed with another key"
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(line.key))
        public.verify(bytes.fromhex(line.signature), line.signed_part())
    except (InvalidSignature, ValueError):
        return "its signature is wrong"
    if line.previous != previous:
        return "does not follow the line before: one was changed, removed or moved"
    return None


def _decoded(content: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(content, type=_Line)
    except msgspec.DecodeError:
        return None


def _latest(lines: list[bytes]) -> Heads:
    heads: Heads = {}
    for content in lines:
        line = _decoded(content)
        if line is not None:
            heads.update(line.heads)
    return heads


def _heads(session: Session) -> Iterator[tuple[str, tuple[int, str]]]:
    last = (
        select(AuditEvent.chain, AuditEvent.seq, AuditEvent.hash)
        .ext(distinct_on(AuditEvent.chain))
        .order_by(AuditEvent.chain, AuditEvent.seq.desc())
    )
    for chain, seq, digest in session.execute(last):
        yield str(chain), (seq, digest.hex())


def _ends_whole(file: Path) -> bool:
    # A line that a full disk cut short must not swallow the next.
    return file.read_bytes().endswith(b"\n")
