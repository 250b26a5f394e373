"""Orders and changes of deployments over REST, for tests."""

from typing import Any

from starlette.testclient import TestClient
from support.orders import BARE, DEDICATED


def order(client: TestClient, path: str = "dedicated", **fields: Any) -> Any:
    spec = {"spec": DEDICATED if path == "dedicated" else BARE}
    body = {"name": "bot", "path": path} | spec | fields
    return client.post("/v1/deployments", json=body)


def ordered(client: TestClient, path: str = "dedicated", **fields: Any) -> dict[str, Any]:
    answer = order(client, path, **fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def change(client: TestClient, made: dict[str, Any], spec: dict[str, Any]) -> Any:
    return client.patch(f"/v1/deployments/{made['id']}", json={"spec": spec})


def refused(answer: Any, status: int, code: str, param: str | None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
