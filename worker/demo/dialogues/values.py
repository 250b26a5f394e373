"""What questions are filled with: names, towns, things, amounts. Every task draws from here."""

import json
from collections.abc import Callable

from worker.demo.dialogues.chance import Chance, Pool


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


NAMES = Pool(
    *words(
        "Anna Ben Carla David Emma Felix Grace Henry Ida Jack Karen Leo Maria Nina Oscar Paul Rosa "
        "Sam Tom Uma Victor Walter Alice Bob Charlie Diana Eric Frank Helen Ivan Julia Kevin Laura "
        "Martin Nora Oliver Peter Rachel Sarah Thomas Ursula Vera William Xavier Adam Brian Claire "
        "Daniel Eva George Hannah Isaac James Kate Lucas Michael Nancy Olivia Philip Robert Simon "
        "Tina Zoe Ada Alan Mary John Lisa Mark Chen Wei Yuki Omar Fatima Ali Priya Raj Ana Luis "
        "Carlos Sofia Pablo"
    )
)
CITIES = Pool(
    *words(
        "Paris London Berlin Rome Madrid Vienna Prague Oslo Stockholm Copenhagen Helsinki Dublin "
        "Lisbon Athens Warsaw Budapest Brussels Amsterdam Zurich Geneva Munich Hamburg Frankfurt "
        "Milan Naples Venice Barcelona Tokyo Kyoto Osaka Beijing Shanghai Delhi Mumbai Cairo "
        "Nairobi Lagos Sydney Melbourne Toronto Montreal Vancouver Boston Chicago Houston Denver "
        "Seattle Atlanta Miami Dallas Austin Portland Moscow Kiev Istanbul Dubai Singapore Seoul "
        "Bangkok Hanoi Manila Jakarta Lima Quito Santiago Havana Ulm Bonn Lyon Nice Turin Porto "
        "Bergen Bern"
    ),
    "New York", "San Francisco", "Los Angeles", "Hong Kong", "Buenos Aires", "Cape Town",
    "Las Vegas",
)  # fmt: skip
COLOURS = Pool(
    *words("red blue green yellow black white orange purple pink brown grey silver gold")
)
THINGS = Pool(
    *words(
        "apple book car chair lamp table phone bottle clock ticket pencil cup bag shoe coat bike "
        "boat key map camera guitar hammer mirror pillow radio ring rope screen shirt spoon train "
        "window wheel basket blanket bread brush candle card carpet coin desk door drum engine fan "
        "fork garden glass hat jacket kettle knife ladder"
    )
)
ANIMALS = Pool(
    *words("cat dog horse cow bird fish mouse rabbit lion tiger bear wolf fox sheep goat duck")
)
LANGUAGES = Pool(
    *words(
        "English French German Spanish Italian Portuguese Dutch Polish Russian Japanese Chinese "
        "Korean Arabic Hindi Turkish Greek Swedish"
    )
)
CURRENCIES = Pool(*words("USD EUR GBP JPY CHF CNY INR CAD AUD SEK"))
TICKERS = Pool(*words("AAPL MSFT GOOG AMZN TSLA NVDA IBM SAP INTC AMD ORCL META BA GE KO"))
WEATHER = Pool(
    *words("sunny cloudy rainy windy foggy stormy clear snowy hot cold dry humid mild"),
    "light rain",
    "heavy snow",
    "partly cloudy",
)
ROOMS = Pool(*words("kitchen bedroom bathroom garage office hall cellar attic"))
SUBJECTS = Pool(
    *words(
        "lunch dinner meeting report invoice holiday project budget interview party review "
        "training delivery release contract workshop breakfast travel"
    )
)


def city(chance: Chance) -> str:
    """A town, often one that exists."""
    return chance.pick(CITIES) if chance.chance(0.7) else chance.proper()


def name(chance: Chance) -> str:
    """A first name, often one that people have."""
    return chance.pick(NAMES) if chance.chance(0.7) else chance.proper()


def phrase(chance: Chance) -> str:
    """A few words."""
    return " ".join(chance.word() for _ in range(chance.between(2, 4)))


def text(chance: Chance) -> str:
    """A word, an identifier or something no one has seen."""
    draw = chance.weighted(
        {
            chance.word: 5.0,
            chance.proper: 3.0,
            chance.code: 2.0,
            chance.token_run: 1.0,
            chance.snake: 1.0,
        }
    )
    return draw()


Value = str | int | float | bool | list[str]
DRAW: dict[str, Callable[[Chance], Value]] = {
    "city": city,
    "name": name,
    "text": text,
    "phrase": phrase,
    "word": Chance.word,
    "code": Chance.code,
    "date": Chance.date,
    "email": Chance.email,
    "url": Chance.url,
    "integer": Chance.number,
    "small": lambda chance: chance.between(1, 20),
    "number": lambda chance: chance.decimal() if chance.chance(0.6) else chance.number(),
    "boolean": lambda chance: chance.chance(0.5),
    "colour": lambda chance: chance.pick(COLOURS),
    "language": lambda chance: chance.pick(LANGUAGES),
    "currency": lambda chance: chance.pick(CURRENCIES),
    "room": lambda chance: chance.pick(ROOMS),
    "subject": lambda chance: chance.pick(SUBJECTS),
    "thing": lambda chance: chance.pick(THINGS),
    "weather": lambda chance: chance.pick(WEATHER),
    "ticker": lambda chance: chance.pick(TICKERS),
    "array": lambda chance: chance.distinct(chance.word, chance.between(1, 3)),
}
JSON_TYPE = {
    "integer": "integer",
    "small": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "array",
}


def schema(kind: str) -> dict[str, object]:
    """The JSON schema of what `DRAW[kind]` makes."""
    found: dict[str, object] = {"type": JSON_TYPE.get(kind, "string")}
    return {**found, "items": {"type": "string"}} if kind == "array" else found


def written(value: object) -> str:
    """A value as people type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value)
    return str(value)
