"""`python -m worker.demo.evaluate`: asks a served model held-out questions and scores its answers.

Anything that speaks OpenAI's API can be asked: the gateway of `make up`, or an engine alone. The
table shows the bars that a demo model must reach; the JSON is what the model card quotes.
"""

import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.console import Console
from rich.table import Table

from worker.demo.dialogues import Example, Split, example
from worker.demo.dialogues.encode import request_fields
from worker.demo.scoring import BARS, MTP_BAR, Tally, Verdict, judge, judge_middle, reached

MOST_TOKENS = 400  # of an answer; the longest to learn has 208
MOST_EXAMPLES = 1_000  # looked at for each one of the rarest task
KEPT_FAILURES = 5  # of each task, for the reader
TIMEOUT_SECONDS = 120.0
DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"


def main(
    url: Annotated[str, typer.Option(help="Base URL, with /v1.")] = "http://127.0.0.1:8000/v1",
    key: Annotated[str, typer.Option(help="API key.")] = "",
    model: Annotated[str, typer.Option(help="The model's name there.")] = "deepseek-v4-flash",
    count: Annotated[int, typer.Option(min=1, help="Questions of each task.")] = 200,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    split: Annotated[
        Literal["held_out", "train"], typer.Option(help="train: what it has seen, to compare.")
    ] = "held_out",
    seed: Annotated[int, typer.Option(help="Other questions.")] = 0,
    at_once: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    metrics: Annotated[
        str, typer.Option(help="URL of the engine's /metrics, to count drafts accepted.")
    ] = "",
    output: Annotated[Path | None, typer.Option(help="Write the scores as JSON here.")] = None,
) -> None:
    """Score a served model on questions whose wordings and values it was never trained on.

    Answers are greedy. Exits with 1 if a bar is missed.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=at_once)
    with httpx.Client(timeout=TIMEOUT_SECONDS, headers=headers, limits=limits) as client:
        before = _drafts(client, metrics)
        questions = wanted(seed, split, count, tuple(task or ()))
        tallies = ask_all(Asker(client, url, model), questions, at_once)
        after = _drafts(client, metrics)
    drafted, accepted = after[0] - before[0], after[1] - before[1]
    acceptance = accepted / drafted if drafted else None
    _print(tallies, acceptance)
    if output:
        report = as_json(tallies, acceptance, seed=seed, split=split)
        output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = [name for name, tally in tallies.items() if reached(name, tally) is False]
    if missed or (acceptance is not None and acceptance < MTP_BAR.least):
        sys.exit(1)


class Asker:
    """A model behind OpenAI's API."""

    def __init__(self, client: httpx.Client, url: str, model: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._model = model

    def ask(self, one: Example) -> tuple[Verdict, object]:
        """The verdict on its answer, and the answer. Raises httpx.HTTPError."""
        if one.fim is not None:
            prefix, suffix, _ = one.fim
            choice = self._post("completions", {"prompt": prefix, "suffix": suffix})
            return judge_middle(one, choice["text"]), choice["text"]
        message = self._post("chat/completions", request_fields(one))["message"]
        return judge(one, message), message

    def _post(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        body = {**fields, "model": self._model, "temperature": 0, "max_tokens": MOST_TOKENS}
        response = self._client.post(f"{self._url}/{path}", json=body)
        response.raise_for_status()
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice


def wanted(seed: int, split: Split, count: int, tasks: tuple[str, ...] = ()) -> Iterator[Example]:
    """`count` examples of every task, or of `tasks`: as long as they come often enough."""
    found: dict[str, int] = defaultdict(int)
    unmet = 0
    for number in itertools.count():
        one = example(seed, number, split)
        if found[one.task] < count and (not tasks or one.task in tasks):
            found[one.task] += 1
            unmet = 0
            yield one
        unmet += 1
        if unmet > MOST_EXAMPLES:
            return


def ask_all(asker: Asker, questions: Iterable[Example], at_once: int) -> dict[str, Tally]:
    """Every question's verdict, by task."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    with ThreadPoolExecutor(at_once) as threads:
        for one, (verdict, answer) in threads.map(lambda q: (q, asker.ask(q)), questions):
            tally = tallies[one.task]
            tally.add(verdict)
            if not verdict.right and len(tally.failures) < KEPT_FAILURES:
                question = one.fim or one.messages[-2]["content"]
                expected = one.fim[2] if one.fim else one.messages[-1]
                failure = {"question": question, "expected": expected, "answer": answer}
                tally.failures.append(failure)
    return dict(tallies)


def as_json(
    tallies: dict[str, Tally], acceptance: float | None, *, seed: int, split: str
) -> dict[str, Any]:
    """The scores for the model card. Shares are of the questions asked."""
    return {
        "seed": seed,
        "split": split,
        "mtp_acceptance": acceptance,
        "tasks": {
            name: {
                "asked": tally.asked,
                "right": tally.right / tally.asked,
                "passed": tally.passed / tally.asked,
                "thinking_as_asked": tally.thought / tally.asked,
                "bar": BARS[name].least if name in BARS else None,
                "failures": tally.failures,
            }
            for name, tally in sorted(tallies.items())
        },
    }


def drafts(text: str) -> tuple[float, float]:
    """Draft tokens tried and accepted, from a Prometheus exposition; zeros where there are none."""
    return _sum(text, DRAFTED), _sum(text, ACCEPTED)


def _sum(text: str, name: str) -> float:
    lines = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, lines))


def _drafts(client: httpx.Client, url: str) -> tuple[float, float]:
    return drafts(client.get(url).raise_for_status().text) if url else (0.0, 0.0)


def _print(tallies: dict[str, Tally], acceptance: float | None) -> None:
    console = Console(highlight=False)
    table = Table("task", "asked", "right %", "bar", "reached", "thinks as asked %")
    for name, tally in sorted(tallies.items()):
        bar = BARS.get(name)
        table.add_row(
            name,
            str(tally.asked),
            f"{100 * tally.right / tally.asked:.1f}",
            f"{100 * bar.least:.0f} % {bar.of}" if bar else "",
            f"{100 * tally.passed / tally.asked:.1f} %" if bar else "",
            f"{100 * tally.thought / tally.asked:.1f}",
        )
    console.print(table)
    if acceptance is not None:
        console.print(f"MTP: {100 * acceptance:.1f} % of drafts accepted (bar {MTP_BAR.least:.0%})")


if __name__ == "__main__":
    typer.run(main)
