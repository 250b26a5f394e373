"""SGLang, `python3 -m sglang.launch_server`."""

from typing import Any

from controlplane.operator.engines import openai
from controlplane.operator.engines.metrics import EngineMetrics, sglang_metrics
from controlplane.operator.engines.place import POD_IP, Place
from controlplane.planner.arguments import sglang_arguments
from controlplane.planner.launch import Launch

RENDEZVOUS_PORT = 20_000


class SGLang:
    """The profile of `sglang`."""

    health_path = "/health"
    metrics_path = "/metrics"
    token_variable = "SGLANG_ENGINE_TOKEN"  # ours: SGLang takes the key as an argument only

    def command(self, launch: Launch, place: Place) -> list[str]:
        """Return the container's command."""
        return [
            "python3",
            "-m",
            "sglang.launch_server",
            "--model-path",
            place.directory,
            "--host",
            POD_IP,
            "--port",
            str(place.port),
            "--served-model-name",
            place.model,
            *sglang_arguments(launch),
            *(["--api-key", f"$({place.token})"] if place.token else []),
            *_nodes(launch),
            *launch.extra,
        ]

    def completion_request(self, model: str) -> tuple[str, dict[str, Any]]:
        """Return a completion of one token."""
        return openai.completion_request(model)

    def parse_metrics(self, text: str) -> EngineMetrics:
        """Return its load, of all its schedulers."""
        return sglang_metrics(text)


def _nodes(launch: Launch) -> list[str]:
    if launch.nodes == 1:
        return []
    joined = ["--nnodes", str(launch.nodes), "--node-rank", "$(LWS_WORKER_INDEX)"]
    return [*joined, "--dist-init-addr", f"$(LWS_LEADER_ADDRESS):{RENDEZVOUS_PORT}"]
