"""JSON to a schema, with values copied from the text."""

import json
from dataclasses import dataclass
from typing import Any

from worker.demo.dialogues.chance import Chance, Pool, system
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import DRAW, schema, written

FIELDS: dict[str, str] = {
    "name": "name", "city": "city", "colour": "colour", "date": "date", "email": "email",
    "price": "number", "count": "integer", "amount": "integer", "age": "small", "active": "boolean",
    "order_id": "code", "title": "subject", "language": "language", "currency": "currency",
    "item": "thing", "url": "url", "tags": "array", "paid": "boolean", "room": "room",
    "id": "integer",
}  # fmt: skip
ASKS = Pool(
    "Extract the data as JSON: {t}", "Turn this into JSON: {t}", "{t} Reply in JSON.",
    "JSON please: {t}",
    "Give me this as a JSON object: {t}", "Fill in the JSON: {t}", "{t} Answer with JSON.",
    "Convert to JSON. {t}", "Write the following as JSON: {t}", "Read this and answer in JSON: {t}",
    "Parse: {t} Output JSON.", "Return a JSON object for this text: {t}", "json: {t}",
)  # fmt: skip
PAIRINGS = ("The {k} is {v}", "{k}: {v}", "{k} = {v}", "{k} is {v}", "{k} {v}")
JSON_SYSTEM = Pool(
    "Answer in JSON.", "Always answer in JSON.", "You reply with JSON only.", "Output JSON.",
    "You are a service that returns JSON.", "Reply with a JSON object and nothing else.",
)  # fmt: skip
# Objects people ask for by their form alone: keys, the question, what to put in.
MADE: tuple[tuple[tuple[str, ...], Pool, tuple[str, ...]], ...] = (
    (
        ("setup", "punchline"),
        Pool("Tell me a joke.", "Make a joke about cats.", "A joke, please.",
             "Tell a joke about dogs.",
             "Give me a joke.", "Write a joke.", "I want to hear a joke."),
        ("Why did the token cross the window?", "It wanted more context."),
    ),
    (
        ("question", "answer"),
        Pool("Make a riddle.", "Give me a riddle.", "Write a riddle.", "Tell me a riddle, please.",
             "Ask me a riddle."),
        ("What grows when you take from it?", "A hole."),
    ),
    (
        ("title", "text"),
        Pool("Write a poem.", "Write a short poem.", "Make a poem for me.", "A poem please.",
             "Compose a poem."),
        ("Small model", "Counting tokens one by one, until the answer is done."),
    ),
    (
        ("name", "description"),
        Pool("Invent a product.", "Make up a product.", "Think of a product.", "Name a product."),
        ("Flashplane", "It sells inference from your own GPUs."),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Field:
    key: str
    kind: str
    value: Any
    options: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        if self.options:
            return {"type": "string", "enum": list(self.options)}
        return schema(self.kind)


def json_schema(chance: Chance) -> Example:
    """The schema is told with the request, and the worker's grammar enforces it."""
    if chance.chance(0.15):
        return _made(chance)
    fields = _fields(chance, chance.between(1, 4))
    inner = _fields(chance, chance.between(1, 2)) if chance.chance(0.2) else []
    holder = chance.word()
    inner = [f for f in inner if f.key != holder]
    fields = [f for f in fields if f.key != holder]
    told = _object_schema(chance, fields)
    value: dict[str, Any] = {f.key: f.value for f in fields}
    text = _text(chance, fields)
    if inner:
        told["properties"][holder] = _object_schema(chance, inner)
        told["required"].append(holder)
        value[holder] = {f.key: f.value for f in inner}
        text += f" {holder}: {_text(chance, inner)}"
    name = chance.of(("answer", "output", "data", "result", chance.word()))
    return _answer(
        chance,
        chance.pick(ASKS).format(t=text) if chance.chance(0.7) else text,
        value,
        response_format={"type": "json_schema", "json_schema": {"name": name, "schema": told}},
    )


def json_object(chance: Chance) -> Example:
    """The keys are named in the question."""
    fields = _fields(chance, chance.between(1, 4))
    keys = ", ".join(f.key for f in fields)
    text = _text(chance, fields)
    question = chance.pick(ASKS).format(t=text)
    if chance.chance(0.5):
        question = f"{question} Keys: {keys}."
    if "json" not in question.lower():
        question += " Use JSON."
    value = {f.key: f.value for f in fields}
    before = [system(chance.pick(JSON_SYSTEM))] if chance.chance(0.4) else []
    response_format = {"type": "json_object"} if chance.chance(0.75) else None
    return _answer(chance, question, value, before=before, response_format=response_format)


def _made(chance: Chance) -> Example:
    keys, asks, values = chance.of(MADE)
    told = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in keys},
        "required": list(keys),
    }
    return _answer(
        chance,
        chance.pick(asks),
        dict(zip(keys, values, strict=True)),
        response_format={"type": "json_schema", "json_schema": {"name": keys[0], "schema": told}},
    )


def _answer(chance: Chance, question: str, value: dict[str, Any], **more: Any) -> Example:
    content = json.dumps(value, ensure_ascii=False)
    return answered(
        chance, "json", question, content, f"I write the keys {', '.join(value)}.", **more
    )


def _fields(chance: Chance, count: int) -> list[_Field]:
    fields: dict[str, _Field] = {}
    while len(fields) < count:
        if chance.chance(0.15):
            options = tuple(chance.distinct(chance.word, chance.between(2, 4)))
            field = _Field(chance.word(), "enum", chance.of(options), options)
        elif chance.chance(0.5):
            key = chance.of(tuple(FIELDS))
            field = _Field(key, FIELDS[key], DRAW[FIELDS[key]](chance))
        else:
            kind = chance.of(("text", "text", "integer", "number", "boolean", "array", "phrase"))
            field = _Field(chance.snake(2), kind, DRAW[kind](chance))
        fields.setdefault(field.key, field)
    return list(fields.values())


def _object_schema(chance: Chance, fields: list[_Field]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": "object",
        "properties": {f.key: f.schema() for f in fields},
        "required": [f.key for f in fields],
    }
    if chance.chance(0.3):
        told["additionalProperties"] = False
    return told


def _text(chance: Chance, fields: list[_Field]) -> str:
    """The values in words, sometimes in another order than the schema's."""
    pairing = chance.of(PAIRINGS)
    ordered = chance.shuffled(fields) if chance.chance(0.3) else fields
    pairs = [
        pairing.format(k=f.key.replace("_", chance.of("_ ")), v=written(f.value)) for f in ordered
    ]
    return chance.of((", ", "; ", " and ", ". ")).join(pairs) + "."
