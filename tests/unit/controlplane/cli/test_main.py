"""How the program begins: quickly, and quietly when it is interrupted meanwhile."""

import subprocess
import sys

# A third of a second each, or more: only commands that use them may import them.
HEAVY = ("alembic", "celery", "fastapi", "kubernetes", "psycopg", "redis", "sqlalchemy", "uvicorn")

INTERRUPT = """
import sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "controlplane.cli.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from controlplane.cli.main import app
app()
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter that has imported nothing of ours."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


def test_knowing_all_commands_takes_none_of_what_they_use() -> None:
    ran = python("import sys, controlplane.cli.commands; print(*sys.modules)")
    assert ran.returncode == 0, ran.stderr
    assert not {name.partition(".")[0] for name in ran.stdout.split()} & set(HEAVY)


def test_ctrl_c_while_it_imports_prints_no_traceback() -> None:
    ran = python(INTERRUPT)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
