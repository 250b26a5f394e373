"""The package's README names tests that exist."""

import re
from pathlib import Path

import controlplane.operator as package

TESTS = Path(__file__).parents[3]
README = (Path(package.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_every_trap_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", README, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    written = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    for number, row in rows:
        names = re.findall(r"::(test_\w+)", row)
        assert names, f"trap {number} has no test"
        for name in names:
            assert f"def {name}(" in written, name


def test_files_that_are_named_are_there() -> None:
    for path in re.findall(r"tests/[\w/]+\.py", README):
        assert (TESTS.parent / path).is_file(), path
