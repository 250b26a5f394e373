"""Flashplane's own engine, `flashplane-worker serve`."""

from typing import Any

from controlplane.operator.engines import openai
from controlplane.operator.engines.metrics import EngineMetrics, vllm_metrics
from controlplane.operator.engines.place import POD_IP, Place
from controlplane.planner.arguments import flash_arguments
from controlplane.planner.launch import Launch


class Flash:
    """The profile of `flash`. Its /health answers 200 only after a first generation."""

    health_path = "/health"
    metrics_path = "/metrics"
    token_variable = "FLASHPLANE_ENGINE_TOKEN"

    def command(self, launch: Launch, place: Place) -> list[str]:
        """Return the container's command."""
        return [
            "flashplane-worker",
            "serve",
            place.directory,
            "--host",
            POD_IP,
            "--port",
            str(place.port),
            "--served-model-name",
            place.model,
            "--drain-seconds",
            str(place.drain_seconds),
            *flash_arguments(launch),
            *launch.extra,
        ]

    def completion_request(self, model: str) -> tuple[str, dict[str, Any]]:
        """Return a completion of one token."""
        return openai.completion_request(model)

    def parse_metrics(self, text: str) -> EngineMetrics:
        """Return its load; it uses vLLM's names, its ranks together."""
        return vllm_metrics(text)
