"""JSON lines with rotation, and nothing in them that was not allowed. Called by entry points.

A line is one event: `_log.info("hold_placed", extra={"request_id": ...})`. Only the fields named
in FIELDS are written, so a prompt or a key cannot slip in with a careless `extra`; an exception is
told by its type and where it passed, never by its text, which may quote what a caller sent.
"""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

FIELDS = frozenset(
    {
        "billed",
        "controller",
        "deployment",
        "duration_ms",
        "endpoint",
        "epoch_id",
        "exit_status",
        "fingerprint",
        "finish_reason",
        "hit_tokens",
        "invoice",
        "key",
        "kind",
        "miss_tokens",
        "model",
        "namespace",
        "offset_bytes",
        "outcome",
        "output_tokens",
        "part",
        "partition",
        "peer",
        "port",
        "reason",
        "received_bytes",
        "replica",
        "reported",
        "request_id",
        "requests",
        "resource",
        "segment",
        "sent_bytes",
        "status",
        "tenant_id",
        "ttft_ms",
    }
)
ROTATE_BYTES = 10 * 10**6
ROTATED_FILES = 5

_KEY = re.compile(r"\b(ds[fa])_[0-9A-Za-z_]{8,}")


def configure(process: str, *, log_dir: Path | None, level: str) -> None:
    """Send this process's logs to `<log_dir>/<process>.log`, or to stderr without a folder."""
    handler: logging.Handler
    if log_dir is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            log_dir / f"{process}.log",
            maxBytes=ROTATE_BYTES,
            backupCount=ROTATED_FILES,
            encoding="utf-8",
        )
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # One tells every request, and the operator asks each engine every second; the other tells the
    # names that strangers try and the commands that customers run.
    for chatty in ("httpx", "asyncssh"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, process, logger, event, allowed fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "event": _without_keys(record.getMessage()),
        }
        for name in FIELDS & record.__dict__.keys():
            line[name] = _without_keys(record.__dict__[name])
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _where(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


def _without_keys(value: object) -> object:
    return _KEY.sub(r"\1_***", value) if isinstance(value, str) else value


def _where(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return [f"{type(error).__module__}.{type(error).__qualname__}", *places]
