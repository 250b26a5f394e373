"""The ways to ask for a completion: what differs between them, and nothing else.

Called by `app`, which finds one by its path, and by `serving`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.gateway.body import GenerationRequest, parse_chat, parse_completion
from controlplane.gateway.merge import Merger, Message, Text


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to ask. `path` is the client's and, after /v1, the engine's."""

    path: str
    parse: Callable[[bytes], GenerationRequest]
    merger: Callable[[], Merger]


CHAT = Endpoint("/chat/completions", parse_chat, lambda: Merger(Message()))
TEXT = Endpoint("/completions", parse_completion, lambda: Merger(Text()))
ENDPOINTS = {endpoint.path: endpoint for endpoint in (CHAT, TEXT)}
