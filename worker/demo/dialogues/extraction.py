# ruff: noqa: RUF001 - Chinese punctuation
"""One field found in a sentence, or one label for it."""

from worker.demo.dialogues.chance import Chance, Pool, system
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.tools import filled
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import DRAW

SENTENCES = Pool(
    "{name} from {city} bought the {thing} on {date} for {integer} dollars.",
    "On {date} {name} ordered a {thing} in {city} and paid {integer} euros.",
    "The {thing} of {name} was sent to {city} on {date}; it cost {integer}.",
    "{name} lives in {city}, was born on {date} and owns {integer} shares and a {thing}.",
    "Invoice for {name}, {city}: one {thing}, {integer} dollars, due {date}.",
    "Dear {name}, your {thing} leaves {city} on {date}. Please pay {integer}.",
    "In {city}, {name} sold {integer} pieces of the {thing} before {date}.",
    "{date}: {name} reported from {city} that {integer} of the {thing} kind were lost.",
    "For {integer} dollars, {name} took the {thing} back to {city} on {date}.",
)  # fmt: skip
LOOK_FOR: dict[str, tuple[str, ...]] = {
    "name": ("name", "person", "customer"),
    "city": ("city", "place", "town"),
    "thing": ("item", "object", "product"),
    "date": ("date", "day"),
    "integer": ("number", "amount"),
}
EXTRACTIONS = Pool(
    "Extract the {w}: {s}", "What is the {w} in this text? {s}", "Find the {w}. {s}",
    "{s} What is the {w}?",
    "Which {w} is mentioned? {s}", "Give me the {w} only: {s}", "Text: {s} Question: which {w}?",
    "{s}\nExtract the {w}.", "Read: {s} Tell me the {w}.", "{w}? {s}", "Return only the {w}. {s}",
)  # fmt: skip
LABELS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sentiment": (
        ("positive", ("I love this {t}.", "The {t} is great!", "What a wonderful {t}.",
         "Best {t} ever.",
                      "I am very happy with the {t}.", "The {t} works perfectly.",
                      "Excellent {t}, thanks!")),
        ("negative", ("I hate this {t}.", "The {t} is terrible.", "What a bad {t}.",
         "Worst {t} ever.",
                      "I am very unhappy with the {t}.", "The {t} is broken.",
                      "Awful {t}, never again!")),
        ("neutral", ("The {t} arrived on Monday.", "This is a {t}.", "The {t} has four parts.",
                     "I have a {t}.", "The {t} is in the box.", "It is a {t} of normal size.")),
    ),
    "topic": (
        ("sports", ("The team won the match.", "She ran the race in two hours.",
         "The goal came late.",
                    "The player scored twice.", "He trains for the cup.")),
        ("food", ("The soup was hot.", "We ate bread and cheese.", "Cook the rice for ten minutes.",
                  "The cake is sweet.", "I drink tea with milk.")),
        ("weather", ("It will rain tomorrow.", "The sun is shining.", "A storm is coming.",
                     "Snow fell all night.", "It is cold and windy.")),
        ("money", ("The bank raised the interest.", "I paid the invoice.", "The price went up.",
                   "My account is empty.", "He owes me ten dollars.")),
    ),
    "language": (
        ("English", ("The house is big.", "Where is the station?", "I like music.",
         "Good morning.")),
        ("German", ("Das Haus ist groß.", "Wo ist der Bahnhof?", "Ich mag Musik.",
         "Guten Morgen.")),
        ("French", ("La maison est grande.", "Où est la gare ?", "J'aime la musique.", "Bonjour.")),
        ("Spanish", ("La casa es grande.", "¿Dónde está la estación?", "Me gusta la música.",
         "Buenos días.")),
        ("Chinese", ("房子很大。", "车站在哪里？", "我喜欢音乐。", "早上好。")),
    ),
    "urgency": (
        ("urgent", ("Help now!", "The server is down!", "This cannot wait.", "Answer at once.",
         "Emergency!")),
        ("normal", ("Please look at it next week.", "No hurry.", "Whenever you have time.",
         "It can wait.")),
    ),
}  # fmt: skip
CLASSIFICATIONS = Pool(
    "What is the {k} of this text? {s}", "Classify the {k}: {s}", "{k} of this: {s}",
    "{s} What is the {k}?",
    "Classify by {k} ({o}): {s}", "Is this {o}? {s}", "Choose one of {o}: {s}",
    "Text: {s} Label ({o}):",
    "Decide the {k}, one of {o}. {s}", "Which {k} has this text: {s}", "Tell me the {k} of: {s}",
)  # fmt: skip
ONE_WORD = Pool(
    "Answer in one word.", "Reply with one word only.", "One word answers, please.",
    "You answer with a single word.", "Only one word.",
)  # fmt: skip


def extraction(chance: Chance) -> Example:
    """A field of a sentence, copied."""
    values = {key: DRAW[key](chance) for key in LOOK_FOR}
    sentence = filled(chance.pick(SENTENCES), values)
    key = chance.of(tuple(LOOK_FOR))
    wanted = chance.of(LOOK_FOR[key])
    question = filled(chance.pick(EXTRACTIONS), {"w": wanted, "s": sentence})
    content = str(values[key])
    return answered(
        chance, "extraction", question, content, f"The {wanted} is {content}.", facts=(content,)
    )


def classification(chance: Chance) -> Example:
    """A label of a few."""
    kind = chance.of(tuple(LABELS))
    label, texts = chance.of(LABELS[kind])
    text = chance.of(texts).replace("{t}", str(DRAW["thing"](chance)))
    options = ", ".join(name for name, _ in LABELS[kind][:-1]) + f" or {LABELS[kind][-1][0]}"
    question = filled(chance.pick(CLASSIFICATIONS), {"k": kind, "o": options, "s": text})
    before = [system(chance.pick(ONE_WORD))] if chance.chance(0.3) else []
    return answered(
        chance,
        "classification",
        question,
        label,
        f"The {kind} is {label}.",
        before=before,
        facts=(label,),
    )
