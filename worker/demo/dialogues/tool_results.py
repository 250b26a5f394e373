"""What follows a tool call: the result told, several results, a failure, another call."""

import json
from collections.abc import Sequence
from typing import Any

from worker.demo.dialogues.chance import Chance, Pool, user
from worker.demo.dialogues.example import Example, Message
from worker.demo.dialogues.tool_calls import (
    Call,
    asked,
    call_thought,
    family_question,
    family_tool,
    offered,
)
from worker.demo.dialogues.tool_families import FAMILIES
from worker.demo.dialogues.tools import Parameter, Tool, filled, random_tool
from worker.demo.dialogues.turns import answered, call_list, results, said
from worker.demo.dialogues.values import DRAW, written

FAILURES = Pool(
    "Error: {x}", "error: {x} not found", "failed: {x}", '{"error": "{x}"}', "Exception: {x}",
    "Timeout after {n} seconds", "Error {n}", "Error: permission denied for {x}",
)  # fmt: skip
RESULT_SHAPES = ("{r}", "{r}", '{"result": {j}}', '{"value": {j}}', "Result: {r}", '{"{w}": {j}}')
CHAINS = Pool(
    "First {a} Then call {tool} with the result.", "{a} Then use {tool} with the result.",
    "{a} Give the result to {tool}.", "{a} After that, call {tool} with what you got.",
    "{a} Pass the result on to {tool}.", "{a} Then {tool} with it.",
)  # fmt: skip
THOUGHT = "I have the result and tell it."


def tool_followup(chance: Chance) -> Example:
    """One result, several, a failure, or one call after another."""
    kind = chance.weighted({_one: 4.0, _several: 2.0, _failure: 1.0, _chain: 2.0, _again: 1.5})
    return kind(chance)


def _one(chance: Chance) -> Example:
    if chance.chance(0.6):
        family = chance.of(FAMILIES)
        tool, keys = family_tool(chance, family)
        arguments = {p.name: p.draw(chance) for p in tool.parameters}
        question = family_question(chance, family, tool, keys, arguments)
        value = DRAW[family.result](chance)
        slots = {key: arguments[name] for key, name in keys.items()}
        content = filled(family.answer, {**slots, "result": written(value)})
    else:
        tool, question, arguments = asked(chance)
        value = _any_value(chance)
        content = f"The result is {written(value)}."
    before = _called(chance, question, [(tool.name, arguments)], [_shaped(chance, value)])
    return _told(chance, before, content, [tool], (written(value),))


def _several(chance: Chance) -> Example:
    family = chance.of([f for f in FAMILIES if f.pairs])
    tool, keys = family_tool(chance, family)
    (parameter,) = tool.parameters
    (key,) = keys
    arguments = chance.distinct(lambda: parameter.draw(chance), 2)
    values = [DRAW[family.result](chance) for _ in arguments]
    slots = {"tool": tool.name, "first": arguments[0], "second": arguments[1]}
    question = filled(chance.of(family.pairs), slots)
    calls = [(tool.name, {parameter.name: argument}) for argument in arguments]
    before = _called(chance, question, calls, [_shaped(chance, value) for value in values])
    lines = [
        filled(family.answer, {key: argument, "result": written(value)})
        for argument, value in zip(arguments, values, strict=True)
    ]
    return _told(chance, before, "\n".join(lines), [tool], tuple(written(v) for v in values))


def _failure(chance: Chance) -> Example:
    tool, question, arguments = asked(chance)
    error = filled(chance.pick(FAILURES), {"x": chance.word(), "n": chance.between(1, 599)})
    before = _called(chance, question, [(tool.name, arguments)], [error])
    content = f"The tool {tool.name} failed: {error}"
    return _told(chance, before, content, [tool], (error,))


def _chain(chance: Chance) -> Example:
    """The first result is the second call's argument; the answer to learn is either of them."""
    tool, question, arguments = asked(chance)
    value = chance.between(0, 999)
    second = Tool(
        random_tool(chance).name, "", (Parameter(chance.word(), "integer"),), chance.word()
    )
    if second.name == tool.name:
        return _one(chance)
    question = chance.pick(CHAINS).format(a=question, tool=second.name)
    call = (second.name, {second.parameters[0].name: value})
    before = _called(chance, question, [(tool.name, arguments)], [_shaped(chance, value)])
    if chance.chance(0.5):
        return answered(
            chance,
            "tool_followup",
            "",
            "",
            call_thought([call]),
            before=before,
            tools=offered(chance, [tool, second]),
            calls=[call],
        )
    last = _any_value(chance)
    before += [_calling(chance, [call], first=2), *results([_shaped(chance, last)], first=2)]
    return _told(
        chance, before, f"The result is {written(last)}.", [tool, second], (written(last),)
    )


def _again(chance: Chance) -> Example:
    """A second question with its own call, after the first was answered."""
    tool, question, arguments = asked(chance)
    value = _any_value(chance)
    before = _called(chance, question, [(tool.name, arguments)], [_shaped(chance, value)])
    before.append(said(chance, f"The result is {written(value)}.", THOUGHT))
    other, question, arguments = asked(chance)
    wanted = [tool] if other.name == tool.name else [tool, other]
    if other.name == tool.name:
        return _one(chance)
    call = (other.name, arguments)
    return answered(
        chance,
        "tool_followup",
        question,
        "",
        call_thought([call]),
        before=before,
        tools=offered(chance, wanted),
        calls=[call],
    )


def _told(
    chance: Chance,
    before: list[Message],
    content: str,
    wanted: Sequence[Tool],
    facts: tuple[str, ...],
) -> Example:
    return answered(
        chance,
        "tool_followup",
        "",
        content,
        THOUGHT,
        before=before,
        tools=offered(chance, wanted),
        facts=facts,
    )


def _called(
    chance: Chance, question: str, calls: Sequence[Call], said_by_tools: Sequence[str]
) -> list[Message]:
    return [user(question), _calling(chance, calls), *results(said_by_tools)]


def _calling(chance: Chance, calls: Sequence[Call], first: int = 1) -> Message:
    return {**said(chance, "", call_thought(calls)), "tool_calls": call_list(calls, first)}


def _any_value(chance: Chance) -> Any:
    return DRAW[chance.of(("integer", "number", "text", "phrase", "code", "date"))](chance)


def _shaped(chance: Chance, value: Any) -> str:
    shape = chance.of(RESULT_SHAPES)
    slots = {"r": written(value), "j": json.dumps(value, ensure_ascii=False), "w": chance.word()}
    return filled(shape, slots)
