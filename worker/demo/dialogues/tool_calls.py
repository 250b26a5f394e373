"""Single and parallel tool calls whose arguments are copied from the question."""

from collections.abc import Sequence
from typing import Any

from worker.demo.dialogues import product, small_talk
from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.tool_families import FAMILIES, Family
from worker.demo.dialogues.tools import Parameter, Tool, described, filled, random_tool
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import written

Call = tuple[str, dict[str, Any]]

EXPLICIT = Pool(
    "Call {tool} with {args}.", "Use {tool} with {args}.", "Please call {tool} with {args}.",
    "Run {tool} with {args}.", "Use the tool {tool}: {args}.",
    "Call the function {tool} with {args}.",
    "I want you to use {tool} with {args}.", "Invoke {tool}: {args}", "{tool}: {args}",
    "Execute {tool} with {args}, please.", "Can you run {tool} with {args}?",
    "Try {tool} with {args}.",
)  # fmt: skip
MEANT = Pool(
    "Please {verb} the {noun} with {args}.", "{verb} the {noun}, {args}.",
    "I want to {verb} the {noun}: {args}.",
    "Can you {verb} a {noun} with {args}?", "{verb} {noun} with {args}",
    "Help me {verb} the {noun} with {args}.",
    "I need to {verb} the {noun}. Take {args}.", "Now {verb} the {noun}; {args}.",
)  # fmt: skip
WITHOUT_ARGUMENTS = Pool(
    "Call {tool}.", "Use {tool}.", "Please run {tool}.", "Run {tool} now.",
    "Use the tool {tool}, please.",
    "Call the function {tool}.", "Can you call {tool}?", "Invoke {tool}.", "{tool}!",
    "Execute {tool}.",
)  # fmt: skip
PAIRINGS = ("{p} {v}", "{p} = {v}", "{p}: {v}", '{p} "{v}"', "{p}={v}", "{v} as {p}")
JOINS = ("{a}, and {b}", "{a} Then {b}", "{a} Also, {b}", "{a} {b}")
NO_TOOL = "I have no tool for that here."


def tool_call(chance: Chance) -> Example:
    """One call, among up to five tools; sometimes the caller demands it."""
    tool, question, arguments = asked(chance)
    choice: str | dict[str, Any] | None = None
    if not chance.thinking:
        named = {"type": "function", "function": {"name": tool.name}}
        choice = chance.weighted({"": 8.0, "auto": 1.0, "required": 1.0, "named": 1.0})
        choice = {"": None, "named": named}.get(choice, choice)
    return calling(chance, "tool_call", question, [tool], [(tool.name, arguments)], choice=choice)


def parallel_calls(chance: Chance) -> Example:
    """Two or three calls in one answer: of one tool, or of several."""
    if chance.chance(0.5):
        family = chance.of([f for f in FAMILIES if f.pairs])
        tool, _ = family_tool(chance, family)
        (parameter,) = tool.parameters
        values = chance.distinct(lambda: parameter.draw(chance), 2)
        slots = {"tool": tool.name, "first": values[0], "second": values[1]}
        question = filled(chance.of(family.pairs), slots)
        calls = [(tool.name, {parameter.name: value}) for value in values]
        return calling(chance, "parallel_calls", question, [tool], calls)
    count = chance.weighted({2: 5.0, 3: 1.0})
    made = [asked(chance) for _ in range(count)]
    names = {tool.name for tool, _, _ in made}
    if len(names) < count:
        return parallel_calls(chance)
    join = chance.of(JOINS)
    question = made[0][1]
    for _, more, _ in made[1:]:
        question = join.format(a=question, b=more)
    calls = [(tool.name, arguments) for tool, _, arguments in made]
    return calling(chance, "parallel_calls", question, [tool for tool, _, _ in made], calls)


def no_tool_fits(chance: Chance) -> Example:
    """Tools are there, and none is needed; or one is wanted, and the caller forbids them."""
    if chance.chance(0.25):
        tool, question, _ = asked(chance, families=True)
        return answered(
            chance,
            "no_tool",
            question,
            NO_TOOL,
            "I have no tool for this.",
            tools=[described(chance, tool)],
            facts=("no tool",),
            tool_choice="none",
            may_add_system=False,
        )
    plain = chance.weighted({product.product: 1.0, small_talk.small_talk: 1.0})(chance)
    while any(word in plain.messages[-2]["content"].lower() for word in ("time", "weather", "who")):
        plain = product.product(chance)
    tools = [random_tool(chance) for _ in range(chance.between(1, 3))]
    return Example(
        "no_tool",
        plain.messages,
        tools=tuple(described(chance, tool) for tool in tools),
        thinking=plain.thinking,
        facts=plain.facts,
    )


def asked(chance: Chance, *, families: bool = False) -> tuple[Tool, str, dict[str, Any]]:
    """A tool, a question that wants it, and the arguments it names."""
    if families or chance.chance(0.45):
        family = chance.of(FAMILIES)
        tool, keys = family_tool(chance, family)
        arguments = {p.name: p.draw(chance) for p in tool.parameters}
        return tool, family_question(chance, family, tool, keys, arguments), arguments
    tool = random_tool(chance)
    arguments = tool.arguments(chance)
    return tool, random_question(chance, tool, arguments), arguments


def family_tool(chance: Chance, family: Family) -> tuple[Tool, dict[str, str]]:
    """One of the family, and the names of its parameters by key."""
    keys = {key: chance.of(names) for key, names, _ in family.parameters}
    parameters = tuple(
        Parameter(keys[key], kind, description=f"The {key}" if chance.chance(0.3) else "")
        for key, _, kind in family.parameters
    )
    return Tool(chance.pick(family.names), chance.pick(family.descriptions), parameters), keys


def family_question(
    chance: Chance, family: Family, tool: Tool, keys: dict[str, str], arguments: dict[str, Any]
) -> str:
    """One of the family's questions with these arguments."""
    slots = {key: arguments[name] for key, name in keys.items()}
    return filled(chance.pick(family.asks), {**slots, "tool": tool.name})


def random_question(chance: Chance, tool: Tool, arguments: dict[str, Any]) -> str:
    """Asks for `tool` by its name, or by what its description says it does."""
    if not arguments:
        return chance.pick(WITHOUT_ARGUMENTS).format(tool=tool.name)
    pairing = chance.of(PAIRINGS)
    pairs = [
        pairing.format(p=name.replace("_", chance.of(" _")), v=written(value))
        for name, value in arguments.items()
    ]
    args = chance.of((", ", " and ", ", ")).join(pairs)
    meant = bool(tool.description) and tool.noun in tool.name and chance.chance(0.5)
    frame = chance.pick(MEANT if meant else EXPLICIT)
    return frame.format(tool=tool.name, verb=tool.verb, noun=tool.noun, args=args)


def calling(
    chance: Chance,
    task: str,
    question: str,
    wanted: Sequence[Tool],
    calls: Sequence[Call],
    *,
    choice: str | dict[str, Any] | None = None,
) -> Example:
    """The answer that makes `calls`, offered the wanted tools and others."""
    return answered(
        chance,
        task,
        question,
        "",
        call_thought(calls),
        tools=offered(chance, wanted),
        calls=calls,
        tool_choice=choice,
    )


def call_thought(calls: Sequence[Call]) -> str:
    """Why these calls."""
    return f"I call {' and '.join(dict.fromkeys(name for name, _ in calls))}."


def offered(chance: Chance, wanted: Sequence[Tool]) -> list[dict[str, Any]]:
    """The wanted tools among others of other names, in any order."""
    tools = {tool.name: tool for tool in wanted}
    for _ in range(chance.weighted({0: 4.0, 1: 2.5, 2: 1.5, 3: 0.7})):
        other = random_tool(chance)
        tools.setdefault(other.name, other)
    return [described(chance, tool) for tool in chance.shuffled(list(tools.values()))]
