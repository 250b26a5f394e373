"""Tools to call: random ones, whose names mean nothing, and families that everybody tries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.values import DRAW, schema, words

VERBS = Pool(
    *words(
        "get set find list send create update delete check show start stop open close read write "
        "move copy count sort merge book order cancel track fetch load save add remove plan rate "
        "test build clean print scan sync lock mark pick reset share sign split store"
    )
)
DESCRIPTIONS = Pool(
    "{Verb} the {noun}.", "{Verb} a {noun}", "{Verb} one {noun} and tell the result.",
    "Use this to {verb} the {noun}.", "This tool can {verb} the {noun}.", "Will {verb} any {noun}.",
    "{Verb} {noun}", "Tool to {verb} a {noun}.", "Lets you {verb} the {noun}.",
    "{Verb}s the {noun}.",
)  # fmt: skip
RANDOM_KINDS = {
    "text": 6.0, "integer": 4.0, "number": 2.0, "boolean": 1.5, "enum": 1.5, "array": 1.0,
    "city": 1.0, "name": 1.0, "date": 1.0, "email": 0.5, "url": 0.5, "code": 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. `kind` is a key of `values.DRAW`, or `enum` with its `options`."""

    name: str
    kind: str
    required: bool = True
    options: tuple[str, ...] = ()
    description: str = ""

    def draw(self, chance: Chance) -> Any:
        """A value for it."""
        return chance.of(self.options) if self.options else DRAW[self.kind](chance)

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        told: dict[str, Any] = (
            {"type": "string", "enum": list(self.options)} if self.options else schema(self.kind)
        )
        return {**told, "description": self.description} if self.description else told


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `verb` and `noun` are how a question names it."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    verb: str = ""
    noun: str = ""

    def arguments(self, chance: Chance) -> dict[str, Any]:
        """Values for all parameters but some optional ones, in the order of the schema."""
        return {p.name: p.draw(chance) for p in self.parameters if p.required or chance.chance(0.5)}


def described(chance: Chance, tool: Tool) -> dict[str, Any]:
    """The tool as a request declares it. Clients differ in what they add and in what order."""
    properties = {p.name: p.schema() for p in tool.parameters}
    required = [p.name for p in tool.parameters if p.required]
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if chance.chance(0.3):
        schema = {"properties": properties, "type": "object"}
    if required or chance.chance(0.3):
        schema["required"] = required
    if chance.chance(0.15):
        schema["additionalProperties"] = False
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    if not tool.description:
        del function["description"]
    return {"type": "function", "function": function}


def random_tool(chance: Chance) -> Tool:
    """A tool that exists in this example alone: verb, made-up noun, 0 to 4 parameters."""
    verb, noun = chance.pick(VERBS), chance.word()
    name = chance.of((f"{verb}_{noun}",) * 4 + (f"{noun}_{verb}", chance.snake(), f"{verb}{noun}"))
    description = ""
    if chance.chance(0.9):
        description = chance.pick(DESCRIPTIONS).format(verb=verb, Verb=verb.capitalize(), noun=noun)
    count = chance.weighted({0: 0.7, 1: 4.0, 2: 3.0, 3: 1.5, 4: 0.6})
    names = chance.distinct(lambda: chance.snake(2), count)
    return Tool(name, description, tuple(_parameter(chance, n) for n in names), verb, noun)


def _parameter(chance: Chance, name: str) -> Parameter:
    kind = chance.weighted(RANDOM_KINDS)
    options = chance.distinct(chance.word, chance.between(2, 4)) if kind == "enum" else []
    description = f"The {name.replace('_', ' ')}" if chance.chance(0.3) else ""
    return Parameter(name, kind, chance.chance(0.85), tuple(options), description)


def filled(template: str, values: Mapping[str, Any]) -> str:
    """`template` with its slots replaced."""
    for slot, value in values.items():
        template = template.replace("{" + slot + "}", str(value))
    return template
