"""JSON log lines. Nothing that a caller typed and no key is ever passed to a logger."""

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

ROTATE_BYTES = 10 * 10**6
ROTATED_FILES = 5


class JsonFormatter(logging.Formatter):
    """One line per record: time, level, logger, message, its fields, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, file: Path | None = None) -> None:
    """Send every logger's records as JSON to `file`, rotated, or to stderr.

    Raises OSError: the file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        handler = RotatingFileHandler(
            file, maxBytes=ROTATE_BYTES, backupCount=ROTATED_FILES, encoding="utf-8"
        )
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
