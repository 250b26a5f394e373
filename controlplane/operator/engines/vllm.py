"""vLLM, `vllm serve`."""

from typing import Any

from controlplane.operator.engines import openai
from controlplane.operator.engines.metrics import EngineMetrics, vllm_metrics
from controlplane.operator.engines.place import POD_IP, Place
from controlplane.planner.arguments import vllm_arguments
from controlplane.planner.launch import Launch

RENDEZVOUS_PORT = 13_345


class VLLM:
    """The profile of `vllm`."""

    health_path = "/health"
    metrics_path = "/metrics"
    token_variable = "VLLM_API_KEY"  # guards /v1, not /health and /metrics

    def command(self, launch: Launch, place: Place) -> list[str]:
        """Return the container's command."""
        command = [
            "vllm",
            "serve",
            place.directory,
            "--host",
            POD_IP,
            "--port",
            str(place.port),
            "--served-model-name",
            place.model,
            *vllm_arguments(launch),
            *_nodes(launch, place),
            *launch.extra,
        ]
        return command if place.leader else _follower(launch, command)

    def completion_request(self, model: str) -> tuple[str, dict[str, Any]]:
        """Return a completion of one token."""
        return openai.completion_request(model)

    def parse_metrics(self, text: str) -> EngineMetrics:
        """Return its load, of all its ranks."""
        return vllm_metrics(text)


def _nodes(launch: Launch, place: Place) -> list[str]:
    """Arguments that join the nodes of a LeaderWorkerSet, which sets these variables."""
    if launch.nodes == 1:
        return []
    if launch.parallelism != "expert":
        joined = ["--nnodes", str(launch.nodes), "--node-rank", "$(LWS_WORKER_INDEX)"]
        joined += ["--master-addr", "$(LWS_LEADER_ADDRESS)", "--master-port", str(RENDEZVOUS_PORT)]
        return joined if place.leader else [*joined, "--headless"]
    local = str(launch.gpus // launch.nodes)
    joined = ["--data-parallel-size-local", local]
    joined += ["--data-parallel-address", "$(LWS_LEADER_ADDRESS)"]
    joined += ["--data-parallel-rpc-port", str(RENDEZVOUS_PORT)]
    return joined if place.leader else [*joined, "--headless"]


def _follower(launch: Launch, command: list[str]) -> list[str]:
    """A node behind the leader's: under data parallelism its first rank follows from its number,
    which is known only where it runs."""
    if launch.parallelism != "expert":
        return command
    local = launch.gpus // launch.nodes
    # Kubernetes makes one dollar of two, the shell the number.
    script = f'exec "$@" --data-parallel-start-rank "$$((LWS_WORKER_INDEX * {local}))"'
    return ["sh", "-c", script, "sh", *command]
