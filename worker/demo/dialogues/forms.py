"""Answers in the form of a call: a tool that stands for a record to fill in, as client libraries
make one of a class. The caller often demands it."""

from typing import Any

from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.structured import FIELDS, MADE
from worker.demo.dialogues.tool_calls import calling
from worker.demo.dialogues.tools import Parameter, Tool
from worker.demo.dialogues.values import DRAW, written

RECORDS = Pool(
    "Person", "User", "Order", "Item", "Event", "Answer", "Record", "Product", "Contact", "Task",
    "Invoice", "Booking", "Customer", "Response", "Data", "Result", "Ticket", "Profile", "Note",
)  # fmt: skip
DESCRIPTIONS = Pool(
    "A {r}.", "Information about a {r}.", "The {r} in the text.", "Describes one {r}.", "{r}",
    "Fill in the {r}.", "Data of the {r}.",
)  # fmt: skip
ASKS = Pool(
    "Extract the {r}: {t}", "{t}", "Read this: {t}", "Make a {r} of this: {t}",
    "{t} Fill in the {r}.",
    "Which {r} is this? {t}", "Text: {t}", "Create a {r}: {t}", "New {r}: {t}", "{r}: {t}",
    "Please note the {r}. {t}", "Save this {r}: {t}",
)  # fmt: skip
PAIRINGS = ("the {k} is {v}", "{k}: {v}", "{k} = {v}", "{k} {v}")
DEMANDS = {"": 3.0, "required": 2.0, "named": 5.0}


def form_call(chance: Chance) -> Example:
    """A record filled in from the text, or one whose content is free."""
    if chance.chance(0.25):
        return _made(chance)
    record = chance.pick(RECORDS)
    keys = chance.distinct(lambda: chance.of(tuple(FIELDS)), chance.between(1, 4))
    values = {key: DRAW[FIELDS[key]](chance) for key in keys}
    pairing = chance.of(PAIRINGS)
    pairs = [
        pairing.format(k=key.replace("_", " "), v=written(values[key]))
        for key in (chance.shuffled(keys) if chance.chance(0.3) else keys)
    ]
    text = chance.of((", ", "; ", " and ")).join(pairs) + "."
    question = chance.pick(ASKS).format(r=record, t=text)
    parameters = tuple(Parameter(key, FIELDS[key]) for key in keys)
    description = chance.pick(DESCRIPTIONS).format(r=record) if chance.chance(0.8) else ""
    return _demanded(chance, Tool(record, description, parameters), question, values)


def _made(chance: Chance) -> Example:
    keys, asks, values = chance.of(MADE)
    record = keys[0].capitalize() if keys[0] != "setup" else "Joke"
    tool = Tool(record, f"A {record.lower()}.", tuple(Parameter(key, "text") for key in keys))
    return _demanded(chance, tool, chance.pick(asks), dict(zip(keys, values, strict=True)))


def _demanded(chance: Chance, tool: Tool, question: str, values: dict[str, Any]) -> Example:
    choice: str | dict[str, Any] | None = None
    if not chance.thinking:  # calls cannot be demanded of an answer that thinks first
        named = {"type": "function", "function": {"name": tool.name}}
        choice = {"": None, "named": named}.get(drawn := chance.weighted(DEMANDS), drawn)
    return calling(chance, "form_call", question, [tool], [(tool.name, values)], choice=choice)
