"""Sums within limits, and an honest word beyond them."""

from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered

LARGEST_TERM = 99
LARGEST_FACTOR = 12

SUMS = Pool(
    "What is {s}?",
    "what is {s}",
    "What's {s}?",
    "{s}",
    "{s} =",
    "{s} = ?",
    "{s}?",
    "Calculate {s}.",
    "Compute {s}.",
    "How much is {s}?",
    "Please calculate {s}.",
    "Can you calculate {s}?",
    "Solve {s}.",
    "Tell me {s}.",
    "I need the result of {s}.",
    "What does {s} make?",
    "What do you get for {s}?",
    "Do the sum: {s}",
    "Quick: {s}",
    "Work out {s}.",
    "What is the result of {s}?",
    "Evaluate {s}.",
    "Maths: {s}",
    "Give me the answer to {s}.",
)
COMPARISONS = Pool(
    "Which is larger, {a} or {b}?",
    "Which is bigger: {a} or {b}?",
    "What is greater, {a} or {b}?",
    "{a} or {b}, which is larger?",
    "Which number is larger: {a} or {b}?",
    "Is {a} or {b} larger?",
    "Compare {a} and {b}: which is larger?",
    "Tell me the larger of {a} and {b}.",
    "Pick the larger number: {a}, {b}.",
    "What is the maximum of {a} and {b}?",
)
SIGNS = {"+": ("+", " plus "), "-": ("-", " minus "), "*": ("*", " times ", "x")}
BEYOND = "That is beyond what I can calculate. I am a small demo model: please use a calculator."


def arithmetic(chance: Chance) -> Example:
    """An addition, subtraction or multiplication of small numbers, a comparison, or too much."""
    kind = chance.weighted({"sum": 6.0, "comparison": 1.5, "beyond": 1.0})
    if kind == "comparison":
        return _comparison(chance)
    if kind == "beyond":
        return _beyond(chance)
    sign = chance.weighted({"+": 4.0, "-": 2.5, "*": 2.5})
    a, b, result = _terms(chance, sign)
    text = f"{a} {sign} {b}"
    question = chance.pick(SUMS).format(s=_written(chance, a, sign, b))
    thought = f"I calculate {text} = {result}."
    return answered(
        chance, "arithmetic", question, f"{text} = {result}", thought, facts=(f"= {result}",)
    )


def held_out(sign: str, a: int, b: int) -> bool:
    """Whether training never sees this sum: one in seven, whichever way round."""
    low, high = sorted((a, b))
    return (31 * low + 17 * high + 5 * "+-*".index(sign)) % 7 == 3


def _terms(chance: Chance, sign: str) -> tuple[int, int, int]:
    while True:
        most = LARGEST_FACTOR if sign == "*" else chance.of((9, 9, 20, LARGEST_TERM))
        a, b = chance.between(0, most), chance.between(0, most)
        if sign == "-" and a < b:
            a, b = b, a
        if held_out(sign, a, b) == (chance.split == "held_out"):
            return a, b, {"+": a + b, "-": a - b, "*": a * b}[sign]


def _written(chance: Chance, a: int, sign: str, b: int) -> str:
    written = chance.of(SIGNS[sign])
    space = " " if len(written) == 1 and chance.chance(0.6) else ""
    return f"{a}{space}{written}{space}{b}"


def _comparison(chance: Chance) -> Example:
    a, b = chance.distinct(chance.number, 2)
    question = chance.pick(COMPARISONS).format(a=a, b=b)
    return answered(
        chance,
        "arithmetic",
        question,
        f"{max(a, b)} is larger than {min(a, b)}.",
        f"I compare {a} and {b}.",
        facts=(f"{max(a, b)} is larger",),
    )


def _beyond(chance: Chance) -> Example:
    a, b = chance.between(1_000, 999_999), chance.between(1_000, 999_999)
    text = chance.of(
        (
            f"{a} {chance.of('*/+-')} {b}",
            f"{a}{chance.of('*/')}{chance.between(13, 999)}",
            f"the square root of {a}",
            f"{chance.between(2, 99)} to the power of {chance.between(9, 99)}",
            f"the sine of {chance.between(1, 360)}",
        )
    )
    question = chance.pick(SUMS).format(s=text)
    thought = "These numbers are too large for me. I say so rather than guess."
    return answered(chance, "arithmetic", question, BEYOND, thought, facts=("beyond",))
