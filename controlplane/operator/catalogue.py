"""The operator's tables: the GPU catalogue and the XID actions, from ConfigMaps, as last readable.

A ConfigMap that somebody breaks changes nothing: what was read before holds, and the log says why.
"""

import logging
import threading
from collections.abc import Mapping
from types import MappingProxyType

from controlplane.cluster import Object
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration
from controlplane.operator.health.table import TABLE_NAME, Action, table_in
from controlplane.planner.catalogue import KEY, InvalidCatalogue, parse
from controlplane.watching.cache import Cache

_log = logging.getLogger(__name__)


class Tables:
    """Reads the ConfigMaps of the release's namespace from their cache."""

    def __init__(self, config_maps: Cache[Object], namespace: str) -> None:
        self._config_maps = config_maps
        self._namespace = namespace
        self._lock = threading.Lock()
        self._text = ""
        self._catalogue: Mapping[str, GPUConfiguration] = MappingProxyType({})

    def catalogue(self) -> Mapping[str, GPUConfiguration]:
        """Return every GPU configuration by id; empty before there is a catalogue."""
        body = self._config_maps.body(self._namespace, CATALOGUE_NAME) or {}
        text = body.get("data", {}).get(KEY, "")
        with self._lock:
            if text and text != self._text:
                self._text = text
                try:
                    self._catalogue = MappingProxyType(parse(text))
                except InvalidCatalogue as error:
                    _log.error("catalogue_unreadable", extra={"reason": str(error)[:1000]})
            return self._catalogue

    def xid_actions(self) -> Mapping[int, Action]:
        """Return what each GPU error asks for."""
        return table_in(self._config_maps.body(self._namespace, TABLE_NAME))
