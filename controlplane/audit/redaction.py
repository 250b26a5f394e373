"""Decides what of a change may be written down for ever. Called by `chain.record`. Pure.

Kept are numbers, booleans, and texts made of words: names, identifiers, amounts, times. Of a URL
its origin is kept. Whatever is named like a secret, or looks drawn by chance, is replaced, so that
a credential of a kind nobody thought of is not kept either.
"""

import re
from collections.abc import Mapping, Sequence

REDACTED = "[redacted]"
MAX_TEXT_CHARS = 500
MAX_ITEMS = 64
MAX_DEPTH = 6
MAX_INTEGER = 2**63 - 1

_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|authori[sz]ation|cookie|signature|digest|pepper|private"
    r"|^(api_?|admin_?|ssh_?)?keys?$|_key$|authorized_keys|^env$",
    re.IGNORECASE,
)
# No UUID's part is longer than 12, no word of ours than 32; half of a random secret is.
_RANDOM = re.compile(r"[A-Za-z0-9+/=_.~-]{24,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What a run of words joined by these is made of; bounded, so that matching never runs away.
_JOINT = re.compile(r"[-_.:/+=~]+")
_WORD = re.compile(r"[A-Z]?[a-z]{1,20}[0-9]{0,4}[a-z]{0,2}|[0-9]{0,19}[a-z]{0,2}")
_TOKEN = re.compile(r"\b(dsf|dsa|whsec|sk|ghp|hf|xox[a-z])_[A-Za-z0-9+/=_-]+|\bsk-\S+")
_URL = re.compile(r"(?P<origin>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s@]*@)?(?P<host>[^/\s?#]*)\S*")
# PostgreSQL's text and JSON know neither NUL nor halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def redact(details: Mapping[str, object]) -> dict[str, object]:
    """Return what may be stored of `details`, as plain JSON without floats."""
    return {
        clean(str(name)): REDACTED if _is_secret(str(name), value) else _kept(value, depth=1)
        for name, value in list(details.items())[:MAX_ITEMS]
    }


def clean(text: str) -> str:
    """Return a text that can be stored: nothing that looks like a secret, nothing endless."""
    text = _UNSTORABLE.sub("\ufffd", text[: 4 * MAX_TEXT_CHARS])
    text = _URL.sub(lambda url: url["origin"] + url["host"], text)
    text = _TOKEN.sub(REDACTED, text)
    text = _RANDOM.sub(lambda run: run[0] if _is_plain(run[0]) else REDACTED, text)
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + "..."


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str | bytes | list | tuple | Mapping) and bool(
        _SECRET_NAME.search(name)
    )


def _is_plain(run: str) -> bool:
    return all(_WORD.fullmatch(part) for part in _JOINT.split(_UUID.sub("id", run)))


def _kept(value: object, *, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # JSON readers turn longer numbers into doubles, and the hash must come out the same.
        return value if abs(value) <= MAX_INTEGER else str(value)
    if depth >= MAX_DEPTH:
        return REDACTED
    if isinstance(value, Mapping):
        return {
            clean(str(name)): REDACTED
            if _is_secret(str(name), item)
            else _kept(item, depth=depth + 1)
            for name, item in list(value.items())[:MAX_ITEMS]
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_kept(item, depth=depth + 1) for item in value[:MAX_ITEMS]]
    return REDACTED if isinstance(value, bytes) else clean(str(value))
