"""What each GPU error asks for: NVIDIA's catalogue for Ampere and newer, changeable per cluster.

Source: the immediate actions of NVIDIA's XID catalogue
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html). 94 and 109 are the ones to get
right: a contained memory error kills one process and the GPU is sound afterwards, a context-switch
timeout leaves it unsound though nothing says so.
"""

import logging
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache

import yaml

from controlplane.cluster import Object

TABLE_NAME = "flashplane-xid-actions"  # the ConfigMap; its key is `actions.yaml`


_log = logging.getLogger(__name__)


class Action(IntEnum):
    """What a GPU error asks for, the graver the higher."""

    IGNORE = 0  # the GPU has dealt with it
    RESTART_APP = 1  # the process is lost, the GPU is sound
    RESET_GPU = 2  # nothing may use the GPU until it was reset
    QUARANTINE = 3  # the machine needs a restart or a person


_IGNORED = (43, 45, 63, 92, 121)
_RESTART = (8, 13, 31, 32, 66, 68, 69, 94)
_RESET = (46, 48, 62, 64, 95, 109, 110, 119, 120, 140, 143)
_QUARANTINE = (54, 74, 79, 136, 142, 144, 145, 146, 147, 148, 149, 150, 151, 155, 156, 158)

XID_ACTIONS: Mapping[int, Action] = {
    **dict.fromkeys(_IGNORED, Action.IGNORE),
    **dict.fromkeys(_RESTART, Action.RESTART_APP),
    **dict.fromkeys(_RESET, Action.RESET_GPU),
    **dict.fromkeys(_QUARANTINE, Action.QUARANTINE),
}

_WORDS = {
    "ignore": Action.IGNORE,
    "restart-app": Action.RESTART_APP,
    "reset-gpu": Action.RESET_GPU,
    "quarantine": Action.QUARANTINE,
}


def parse(text: str) -> Mapping[int, Action]:
    """Return NVIDIA's table with the rows of `text` (YAML, `94: restart-app`) over it.

    Raises:
        ValueError: it is no such table; the message names the row.
    """
    try:
        rows = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(rows, dict):
        raise ValueError("give a mapping of XIDs to actions")
    changed: dict[int, Action] = {}
    for xid, word in rows.items():
        if not isinstance(xid, int) or word not in _WORDS:
            raise ValueError(f"{xid!r}: {word!r}: give a number and one of {', '.join(_WORDS)}")
        changed[xid] = _WORDS[word]
    return {**XID_ACTIONS, **changed}


def table_in(config_map: Object | None) -> Mapping[int, Action]:
    """Return the table of a ConfigMap; NVIDIA's alone without one, or while it cannot be read."""
    text = "" if config_map is None else config_map.get("data", {}).get("actions.yaml", "")
    return _table(text)


@lru_cache(maxsize=4)
def _table(text: str) -> Mapping[int, Action]:
    try:
        return parse(text)
    except ValueError as error:
        _log.error("xid_table_unreadable", extra={"reason": str(error)})
        return XID_ACTIONS
