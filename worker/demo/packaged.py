"""The stored demo model that comes along with this package. Called by `flashplane-worker model
demo` and `model stored`, and by the training's `export`. Loads no torch: it answers at once.
"""

import hashlib
from pathlib import Path

from worker.errors import ConfigError

STORED = Path(__file__).parent / "demo.model"


def content(file: Path = STORED) -> bytes:
    """Read a stored model. Raises ConfigError where there is none, which names the fix."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"no stored demo model at {file}: take a checkout or package that has one, or train "
            "one as worker/demo/README.md tells and name its file by --stored"
        ) from None


def digest(stored: bytes) -> str:
    """SHA-256 of a stored model, in hexadecimal digits: changes whenever what is installed does."""
    return hashlib.sha256(stored).hexdigest()
