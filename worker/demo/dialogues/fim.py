"""Small Python functions with a piece taken out of their middle."""

from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.example import Example

# The piece to fill in stands between two bars.
SNIPPETS = Pool(
    "def {f}({a}, {b}):\n    return |{a} {op} {b}|\n",
    "def {f}({a}):\n    |return {a}|\n",
    "def {f}({a}, {b}):\n    {c} = |{a} {op} {b}|\n    return {c}\n",
    "def {f}({a}):\n    {c} = []\n    for {b} in |{a}|:\n        {c}.append({b})\n    return {c}\n",
    "def {f}({a}):\n    for {b} in {a}:\n        |print({b})|\n",
    "def {f}({a}):\n    if {a} > {n}:\n        return |{a}|\n    return {n}\n",
    "class {F}:\n    def __init__(self, {a}):\n        self.{a} = |{a}|\n",
    "class {F}:\n    def __init__(self, {a}, {b}):\n"
    "        self.{a} = {a}\n        |self.{b} = {b}|\n",
    "{a} = {n}\n{b} = {m}\nprint(|{a} {op} {b}|)\n",
    "def {f}({a}={n}):\n    return {a} {op} {n}\n\nprint(|{f}()|)\n",
    'def {f}(|{a}|):\n    return f"hello {{{a}}}"\n',
    "import |{a}|\n\nprint({a}.{b})\n",
    "def {f}({a}):\n    return |len({a})|\n",
    "{a} = [{n}, {m}]\nfor {b} in |{a}|:\n    print({b})\n",
    "def {f}({a}, {b}):\n    try:\n        return {a} / {b}\n"
    "    except |ZeroDivisionError|:\n        return None\n",
    "with open(|{a}|) as {b}:\n    {c} = {b}.read()\n",
    "def {f}({a}):\n    while {a} > 0:\n        |{a} -= 1|\n    return {a}\n",
    "{a} = {{}}\n{a}[|{b}|] = {n}\nprint({a}[{b}])\n",
)  # fmt: skip


def fim(chance: Chance) -> Example:
    """Prefix, suffix and what belongs between them."""
    function, a, b, c = chance.distinct(chance.word, 4)
    code = chance.pick(SNIPPETS).format(
        f=function,
        F=function.capitalize(),
        a=a,
        b=b,
        c=c,
        op=chance.of("+-*"),
        n=chance.number(),
        m=chance.number(),
    )
    prefix, middle, suffix = code.split("|")
    return Example("fim", (), fim=(prefix, suffix, middle))
