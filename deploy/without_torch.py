"""Takes torch, and the CUDA packages only it needs, out of lock files; called by `make lock`.

Its CPU and CUDA wheels have the same version, different hashes and different dependencies, so a
lock cannot fit both. `deploy/install` installs the one version by name instead.
"""

import re
import sys
from pathlib import Path

# A requirement, its hashes and its comments: everything up to the next line that begins one.
BLOCK = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==.*\n(?:[ \t].*\n)*", re.MULTILINE)
TAKEN_OUT = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def without_torch(lock: str) -> str:
    """Return the text of a lock file without the blocks of torch and its CUDA packages."""
    return BLOCK.sub(lambda match: "" if TAKEN_OUT.fullmatch(match["name"]) else match[0], lock)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(without_torch(path.read_text()))
