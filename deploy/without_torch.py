"""Takes torch, and the CUDA packages only it needs, out of lock files; called by `make lock`.

Its CPU and CUDA wheels have the same version, different hashes and different dependencies, so a
lock cannot fit both. `deploy/install` installs the one version by name instead. Triton stays where
the project asks for it itself, as tests do, which need it beside torch without CUDA.
"""

import re
import sys
from pathlib import Path

# A requirement, its hashes and its comments: everything up to the next line that begins one.
BLOCK = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==.*\n(?:[ \t].*\n)*", re.MULTILINE)
TAKEN_OUT = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
OWN = "flashplane (pyproject.toml)"  # as a block's comments name who asks for it


def without_torch(lock: str) -> str:
    """Return the text of a lock file without the blocks of torch and its CUDA packages."""
    return BLOCK.sub(lambda match: "" if _is_taken_out(match) else match[0], lock)


def _is_taken_out(block: re.Match[str]) -> bool:
    wanted = block["name"] == "triton" and OWN in block[0]
    return not wanted and TAKEN_OUT.fullmatch(block["name"]) is not None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(without_torch(path.read_text()))
