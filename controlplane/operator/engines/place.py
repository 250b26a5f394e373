"""Where an engine runs, as its command needs it."""

from dataclasses import dataclass

POD_IP = "$(POD_IP)"  # set by every engine container from the pod's status


@dataclass(frozen=True)
class Place:
    """One node of a replica.

    Attributes:
        model: the name under which it serves, exactly what customers ask for.
        directory: where the weights lie in the container.
        drain_seconds: how long requests may finish after SIGTERM.
        token: name of the environment variable with the engine token; empty: none is asked for.
        leader: on replicas of several nodes, whether this is the one that answers requests.
    """

    model: str
    directory: str
    port: int
    drain_seconds: int
    token: str = ""
    leader: bool = True
