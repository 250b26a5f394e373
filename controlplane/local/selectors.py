"""Label selectors, as in `app=web,tier!=cache,zone in (a,b),gpu,!spot`: pure, for `objects`."""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from controlplane.cluster import Invalid

Labels: TypeAlias = Mapping[str, str]
Matcher: TypeAlias = Callable[[Labels], bool]

_TERM = re.compile(
    r"""\s*(?:
        (?P<absent>!\s*)?(?P<key>[\w./-]+)\s*
        (?:(?P<how>=|==|!=)\s*(?P<value>[\w.-]*)
          |(?P<in>in|notin)\s*\((?P<values>[^)]*)\))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def matcher(selector: str) -> Matcher:
    """Return what tells whether an object's labels match; an empty selector matches all.

    Raises:
        Invalid: it is no selector.
    """
    terms: list[Matcher] = []
    at = 0
    while at < len(selector):
        found = _TERM.match(selector, at)
        if found is None:
            raise Invalid(f"no label selector: {selector!r}")
        terms.append(_term(found))
        at = found.end()
    return lambda labels: all(term(labels) for term in terms)


def _term(found: re.Match[str]) -> Matcher:
    key = found["key"]
    if found["in"]:
        values = {value.strip() for value in found["values"].split(",")}
        wanted = found["in"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    if found["how"]:
        value, equal = found["value"], found["how"] != "!="
        return lambda labels: (labels.get(key) == value) == equal
    present = not found["absent"]
    return lambda labels: (key in labels) == present
