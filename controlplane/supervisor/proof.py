"""Proves that the product works: one real completion through the gateway, and its settled bill.

Called by `up` before it says that it is ready.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from controlplane.supervisor.errors import ServiceFailed

PAUSE_SECONDS = 0.1
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Prover:
    """Speaks to the gateway as a customer; `tick` keeps the tree alive between two tries."""

    http: httpx.Client
    tick: Callable[[], None]
    timeout_seconds: float

    def complete(self, model: str) -> str | None:
        """Get a completion; return its request id, or None when the balance is used up.

        Raises:
            ServiceFailed: no completion before the deadline, or a refusal that will not pass.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 2,
            "thinking": {"type": "disabled"},
        }
        last = "no answer"
        deadline = time.monotonic() + self.timeout_seconds
        while time.monotonic() < deadline:
            try:
                answer = self.http.post("/v1/chat/completions", json=body, timeout=ANSWER_SECONDS)
            except httpx.HTTPError as error:
                last = type(error).__name__
            else:
                if answer.status_code == 200:
                    return answer.headers["x-request-id"]
                if answer.status_code == 402:
                    return None
                last = f"{answer.status_code}: {answer.text[:300]}"
                if answer.status_code not in (404, 500, 502, 503):
                    break
            self._wait()
        raise ServiceFailed(f"The gateway completed no request; its last answer was {last}")

    def settled(self, request_id: str) -> None:
        """Wait until the request's bill is settled.

        Raises:
            ServiceFailed: not before the deadline.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while time.monotonic() < deadline:
            try:
                if self.http.get(f"/v1/account/usage/{request_id}").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # a gateway that was just restarted; the deadline bounds this
            self._wait()
        raise ServiceFailed(
            "The first request was not billed in time: see the logs of jobs and beat, "
            "jobs.out and beat.out."
        )

    def _wait(self) -> None:
        self.tick()
        time.sleep(PAUSE_SECONDS)
