"""Reasons are few, used and documented."""

import re
from pathlib import Path

from controlplane.crd.conditions import ConditionType, Reason

ROOT = Path(__file__).resolve().parents[4]
MANUAL = ROOT / "charts/flashplane/README.md"


def produced(words: str) -> set[str]:
    """The members of an enumeration that code other than its definition names."""
    code = (
        file.read_text()
        for file in (ROOT / "controlplane").rglob("*.py")
        if file.name != "conditions.py" or file.parent.name != "crd"
    )
    return {name for text in code for name in re.findall(rf"\b{words}\.([A-Z_]+)\b", text)}


def test_every_reason_is_given_somewhere() -> None:
    assert produced("Reason") == set(Reason.__members__)


def test_every_condition_is_set_somewhere() -> None:
    assert produced("ConditionType") == set(ConditionType.__members__)


def test_the_manual_tells_of_every_reason_and_of_no_other() -> None:
    _, _, section = MANUAL.read_text().partition("## What a status says")
    table = section.partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(told) == sorted(Reason)
