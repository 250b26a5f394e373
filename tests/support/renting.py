"""Orders deployments of a running product, and uses them as a customer does."""

import json
import threading
from typing import Any

import httpx
from support.polling import until

MODEL = "deepseek-v4-flash"
WEIGHTS = {"pvc": {"claim": "tiny"}}
SERVING_SECONDS = 90.0


def client(url: str, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)


def order(customer: httpx.Client, name: str, **spec: Any) -> str:
    """Order a dedicated deployment of one tiny replica; return where it is shown."""
    body = {
        "name": name,
        "path": "dedicated",
        "spec": {"configurations": ["cpu-tiny"], "replicas": 1, "weights": WEIGHTS, **spec},
    }
    answer = customer.post("/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    return f"/v1/deployments/{answer.json()['id']}"


def change(customer: httpx.Client, where: str, **spec: Any) -> int:
    """Change a deployment; return its new generation."""
    answer = customer.patch(where, json={"spec": spec})
    assert answer.status_code == 200, answer.text
    generation: int = answer.json()["generation"]
    return generation


def seen(http: httpx.Client, where: str, what: Any) -> dict[str, Any]:
    """A deployment, as soon as `what(deployment)` holds."""
    last: dict[str, Any] = {}

    def holds() -> bool:
        nonlocal last
        answer = http.get(where)
        last = answer.json()
        return answer.status_code == 200 and bool(what(last))

    try:
        until(holds, seconds=SERVING_SECONDS, what=f"{where} to be so")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {json.dumps(last)}") from None
    return last


def serves(deployment: dict[str, Any]) -> bool:
    return bool(deployment["phase"] == "Serving")


def runs(deployment: dict[str, Any], replicas: int) -> bool:
    status = deployment["status"]
    return bool(status["serving"] == status["replicas"] == replicas)


def bill(http: httpx.Client, where: str) -> list[dict[str, Any]]:
    """The proven lives of a deployment's replicas, with what they cost."""
    lives: list[dict[str, Any]] = http.get(f"{where}/usage").json()["data"]
    return lives


def models(http: httpx.Client) -> list[str]:
    return [it["id"] for it in http.get("/v1/models").json()["data"]]


def complete(http: httpx.Client, model: str, max_tokens: int = 2) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": max_tokens,
        "thinking": {"type": "disabled"},
    }
    return http.post("/v1/chat/completions", json=body)


def stream(http: httpx.Client, model: str, tokens: int, begun: threading.Event) -> int:
    """Read a whole stream; return how many tokens its usage tells. Sets `begun` at the first."""
    body = {
        "model": model,
        "prompt": "One, two,",
        "max_tokens": tokens,
        "temperature": 1,
        "logit_bias": {"1": -100},  # its words are random: it must not say that it is done
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    count, done = 0, False
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                begun.set()
                count = (chunk.get("usage") or {}).get("completion_tokens", count)
    assert done, "the stream broke off"
    return count
