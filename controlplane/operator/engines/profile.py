"""What the operator needs to know of an engine to run it, prove it servable and read its load.

`manifests` asks for the container's command, `replica.monitor` for everything else. A further
engine is a profile in `ENGINES` and arguments in `planner.arguments`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from controlplane.crd.engine import EngineName
from controlplane.operator.engines.flash import Flash
from controlplane.operator.engines.metrics import EngineMetrics
from controlplane.operator.engines.place import Place
from controlplane.operator.engines.sglang import SGLang
from controlplane.operator.engines.vllm import VLLM
from controlplane.planner.launch import Launch


class EngineProfile(Protocol):
    """One engine. Every method is pure."""

    @property
    def health_path(self) -> str:
        """Where GET answers 200 once it is up."""

    @property
    def metrics_path(self) -> str:
        """Where GET answers Prometheus' text."""

    @property
    def token_variable(self) -> str:
        """The environment variable that holds the token it asks of requests."""

    def command(self, launch: Launch, place: Place) -> list[str]:
        """Return the container's whole command for one node."""

    def completion_request(self, model: str) -> tuple[str, dict[str, Any]]:
        """Return path and body of a POST that generates one token: the proof that it serves."""

    def parse_metrics(self, text: str) -> EngineMetrics:
        """Return its load; what it does not tell is None."""


ENGINES: Mapping[EngineName, EngineProfile] = MappingProxyType(
    {"flash": Flash(), "vllm": VLLM(), "sglang": SGLang()}
)
