import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from worker.demo.dialogues import Example
from worker.demo.dialogues.encode import request_fields
from worker.demo.evaluate import Asker, as_json, ask_all, drafts, wanted

Environ = dict[str, Any]


class Knowing:
    """A server (WSGI) that knows the answers to some examples, and says "well" to others."""

    def __init__(self, known: Iterable[Example], ignorant_of: str) -> None:
        self._answers = {
            self._question(self._fields(one)): self._answer(one)
            for one in known
            if one.task != ignorant_of
        }
        self.temperatures: set[float] = set()

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> list[bytes]:
        body = json.loads(environ["wsgi.input"].read())
        self.temperatures.add(body["temperature"])
        ignorance = {"text": "well", "message": {"role": "assistant", "content": "well"}}
        choice = self._answers.get(self._question(body), ignorance)
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"choices": [choice]}).encode()]

    @staticmethod
    def _fields(one: Example) -> dict[str, Any]:
        return request_fields(one) if one.fim is None else {"prompt": one.fim[0]}

    @staticmethod
    def _question(fields: dict[str, Any]) -> str:
        return json.dumps([fields.get("messages"), fields.get("prompt"), fields.get("tools")])

    @staticmethod
    def _answer(one: Example) -> dict[str, Any]:
        return {"text": one.fim[2]} if one.fim else {"message": one.messages[-1]}


@pytest.fixture(scope="module")
def questions() -> list[Example]:
    return list(wanted(0, "held_out", 5))


def test_every_task_is_asked_as_often_as_was_wanted(questions: list[Example]) -> None:
    assert set(Counter(one.task for one in questions).values()) == {5}


def test_only_the_tasks_named_are_asked() -> None:
    assert {one.task for one in wanted(0, "held_out", 2, ("fim", "recall"))} == {"fim", "recall"}


def test_answers_are_scored_by_task(questions: list[Example]) -> None:
    server = Knowing(questions, ignorant_of="recall")
    with httpx.Client(transport=httpx.WSGITransport(app=server)) as client:
        tallies = ask_all(Asker(client, "http://model/v1", "demo"), questions, at_once=2)
    assert {name: tally.right for name, tally in tallies.items()} == {
        one.task: 0 if one.task == "recall" else 5 for one in questions
    }
    assert len(tallies["recall"].failures) == 5
    assert tallies["recall"].failures[0]["answer"]["content"] == "well"
    assert server.temperatures == {0}
    report = as_json(tallies, 0.75, seed=0, split="held_out")
    assert report["tasks"]["recall"]["passed"] == 0
    assert report["tasks"]["tool_call"]["passed"] == 1
    assert json.loads(json.dumps(report))["mtp_acceptance"] == 0.75


def test_a_server_that_refuses_is_an_error() -> None:
    def refusing(environ: Environ, start: Callable[..., Any]) -> list[bytes]:
        start("401 Unauthorized", [])
        return [b""]

    one = next(wanted(0, "held_out", 1))
    with (
        httpx.Client(transport=httpx.WSGITransport(app=refusing)) as client,
        pytest.raises(httpx.HTTPStatusError),
    ):
        Asker(client, "http://model/v1", "demo").ask(one)


def test_drafts_are_added_up_over_ranks() -> None:
    text = (
        "# TYPE vllm:spec_decode_num_draft_tokens_total counter\n"
        'vllm:spec_decode_num_draft_tokens_total{model_name="m",rank="0"} 10.0\n'
        'vllm:spec_decode_num_draft_tokens_total{model_name="m",rank="1"} 6.0\n'
        'vllm:spec_decode_num_accepted_tokens_total{model_name="m",rank="0"} 12.0\n'
    )
    assert drafts(text) == (16.0, 12.0)
    assert drafts("") == (0.0, 0.0)
