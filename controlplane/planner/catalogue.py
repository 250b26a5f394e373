"""The GPU catalogue: YAML in, configurations out, with errors that say which entry is wrong.

The operator reads it from a ConfigMap (key KEY); `default_text` is what the chart ships.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError

from controlplane.crd.configuration import GPUConfiguration

KEY = "catalogue.yaml"  # of the ConfigMap


class InvalidCatalogue(Exception):
    """The catalogue cannot be used; the message lists every fault, one a line."""


def default_text() -> str:
    """Return the catalogue that is shipped."""
    return (files("controlplane.planner") / KEY).read_text(encoding="utf-8")


def parse(text: str) -> dict[str, GPUConfiguration]:
    """Return the configurations of a catalogue by id, in its order.

    Raises:
        InvalidCatalogue: not YAML, not a catalogue, or an entry is wrong; nothing of it is used.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidCatalogue(f"not YAML: {error}") from error
    entries = document.get("configurations") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidCatalogue("no list `configurations`")
    faults: list[str] = []
    found: dict[str, GPUConfiguration] = {}
    for number, entry in enumerate(entries):
        name = _name(entry, number)
        try:
            configuration = GPUConfiguration.model_validate(entry)
        except ValidationError as error:
            faults += [f"{name}: {_path(it)}: {it['msg']}" for it in error.errors()]
            continue
        faults += [f"{name}: {fault}" for fault in _faults(configuration)]
        if configuration.id in found:
            faults.append(f"{name}: there are two of this id")
        found[configuration.id] = configuration
    if faults:
        raise InvalidCatalogue("\n".join(faults))
    return found


def _faults(configuration: GPUConfiguration) -> list[str]:
    """What an entry's types cannot say."""
    if configuration.count % configuration.nodes:
        count, nodes = configuration.count, configuration.nodes
        return [f"{count} GPUs cannot be divided evenly over {nodes} nodes"]
    return []


def _name(entry: object, number: int) -> str:
    name = entry.get("id") if isinstance(entry, Mapping) else None
    return str(name) if name else f"entry {number + 1}"


def _path(error: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in error["loc"]) or "entry"
