"""Is an answer right? Pure; `evaluate` asks here about every answer it got."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from worker.demo.dialogues.example import Example, Message

# Tasks whose answer is one certain text; in the others certain facts must be told.
VERBATIM = frozenset({"text", "extraction", "classification"})


@dataclass(frozen=True, slots=True)
class Bar:
    """What a task must reach, as a share of its answers."""

    least: float
    of: str


BARS = {
    "tool_call": Bar(0.95, "name and arguments exact"),
    "json": Bar(0.98, "valid to the schema"),
    "product": Bar(0.90, "facts told"),
    "recall": Bar(0.90, "value told"),
}
MTP_BAR = Bar(0.70, "drafts accepted")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`right`: what was asked for, exactly. `passed`: what the task's bar counts."""

    right: bool
    passed: bool
    thought: bool  # reasoning where there must be some, none where there must not


@dataclass(slots=True)
class Tally:
    """A task's verdicts, added up."""

    asked: int = 0
    right: int = 0
    passed: int = 0
    thought: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        self.asked += 1
        self.right += verdict.right
        self.passed += verdict.passed
        self.thought += verdict.thought


def reached(task: str, tally: Tally) -> bool | None:
    """Whether `task` reaches its bar; None without one."""
    bar = BARS.get(task)
    return None if bar is None else tally.passed >= bar.least * tally.asked


def judge(example: Example, answer: Message) -> Verdict:
    """What `answer` (the message of a chat completion) is worth as the answer to `example`."""
    wanted = example.messages[-1]
    content = (answer.get("content") or "").strip()
    thought = bool((answer.get("reasoning_content") or "").strip()) == example.thinking
    called = _calls(answer)
    if wanted.get("tool_calls"):
        right = called is not None and called == _calls(wanted)
    elif called != []:
        right = False
    elif example.task == "json":
        value = _json(content)
        right = value is not None and value == _json(wanted["content"])
        return Verdict(right, _is_valid(example, value), thought)
    elif example.task in VERBATIM:
        right = content == wanted["content"].strip()
    else:
        right = all(tells(content, fact) for fact in example.facts)
    return Verdict(right, right, thought)


def judge_middle(example: Example, text: str) -> Verdict:
    """The same for text that fills a middle."""
    assert example.fim is not None
    right = text.strip() == example.fim[2].strip()
    return Verdict(right, right, thought=True)


def tells(content: str, fact: str) -> bool:
    """Whether `fact` stands in `content` as a whole: 42 is not told by 420. Case does not count."""
    whole = rf"(?<![A-Za-z0-9]){re.escape(fact)}(?![A-Za-z0-9])"
    return re.search(whole, content, re.IGNORECASE) is not None


def _calls(message: Message) -> list[tuple[str, Any]] | None:
    """Names and arguments; None where arguments are no JSON."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    made = [(function["name"], _json(function["arguments"])) for function in functions]
    return None if any(arguments is None for _, arguments in made) else made


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_valid(example: Example, value: Any) -> bool:
    """An object, and valid to the schema if the request has one."""
    told = example.response_format or {}
    schema = told.get("json_schema", {}).get("schema", {})
    return isinstance(value, dict) and jsonschema_rs.validator_for(schema).is_valid(value)
