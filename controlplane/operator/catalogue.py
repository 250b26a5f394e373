"""The GPU catalogue in force: the ConfigMap's newest text that can be read. Made by `main`.

A text with a fault changes nothing: the one before stays, and the log tells every fault.
"""

import logging
import threading
from collections.abc import Mapping
from types import MappingProxyType

from controlplane.cluster import Object
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration
from controlplane.operator.runtime.cache import Cache, Change
from controlplane.planner.catalogue import KEY, InvalidCatalogue, parse

_log = logging.getLogger(__name__)


class Catalogue:
    """Every GPU configuration by id; call it to read them. Safe for use by many threads."""

    def __init__(self, config_maps: Cache[Object], namespace: str) -> None:
        """Follow the ConfigMap CATALOGUE_NAME of the release's namespace in a cache."""
        self._config_maps = config_maps
        self._key = (namespace, CATALOGUE_NAME)
        self._lock = threading.Lock()
        self._current: Mapping[str, GPUConfiguration] = MappingProxyType({})
        config_maps.subscribe(self._changed)

    def __call__(self) -> Mapping[str, GPUConfiguration]:
        """Return the configurations; empty before the first text that can be read."""
        return self._current

    def _changed(self, change: Change) -> None:
        if change.key != self._key or change.new is None:
            return  # a catalogue that is gone for a moment must not refuse every deployment
        with self._lock:
            body = self._config_maps.body(*self._key)
            if body is None:
                return
            try:
                self._current = MappingProxyType(parse(body.get("data", {}).get(KEY, "")))
            except InvalidCatalogue as error:
                _log.error("catalogue_is_invalid", extra={"reason": str(error)})
