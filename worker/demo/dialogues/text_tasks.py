"""Small jobs on text: repeat, spell, count, change case, list, summarise; a little knowledge."""

from collections.abc import Callable

from worker.demo.dialogues.chance import Chance, Pool, system
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import ANIMALS, CITIES, COLOURS, NAMES, THINGS, phrase, text

REPEAT = Pool(
    "Repeat after me: {x}", "Say {x}", "Say: {x}", "Repeat: {x}", "Echo {x}",
    "Please repeat this: {x}",
    "Write exactly this: {x}", "Copy this text: {x}", "Reply with {x}", "Reply with exactly: {x}",
    "Answer with the word {x}", "Just say {x}", "Print {x}", "Respond only with: {x}", 'Say "{x}"',
    "Output {x} and nothing else.", "Say this: {x}", "Echo back: {x}",
)  # fmt: skip
SPELL = Pool(
    "Spell {x}.", "Spell the word {x}.", "How do you spell {x}?", "Write {x} letter by letter.",
    "Please spell {x}.", "Spell out {x}.", "Give me the letters of {x}.",
)  # fmt: skip
COUNT_WORDS = Pool(
    "How many words are in this: {x}", "Count the words: {x}", "How many words does this have? {x}",
    "Number of words in: {x}", "Count the words of {x}", "Tell me how many words: {x}",
)  # fmt: skip
UPPER = Pool(
    "Write {x} in capital letters.", "Make this upper case: {x}", "{x} in upper case, please.",
    "Uppercase: {x}", "Shout {x}.", "Turn {x} into capitals.", "Convert to uppercase: {x}",
)  # fmt: skip
LOWER = Pool(
    "Write {x} in small letters.", "Make this lower case: {x}", "{x} in lower case, please.",
    "Lowercase: {x}", "Turn {x} into small letters.", "Convert to lowercase: {x}",
)  # fmt: skip
COUNT = Pool(
    "Count from {a} to {b}.", "Count from {a} to {b}", "count {a} to {b}",
    "Write the numbers from {a} to {b}.",
    "List the numbers {a} to {b}.", "Please count from {a} up to {b}.",
    "Numbers from {a} to {b}, please.",
    "Say the numbers from {a} to {b}.", "Can you count from {a} to {b}?",
)  # fmt: skip
LISTS = Pool(
    "List {n} {things}.", "Name {n} {things}.", "Give me {n} {things}.", "Tell me {n} {things}.",
    "Write a list of {n} {things}.", "{n} {things}, please.", "I need {n} {things}.",
    "Can you name {n} {things}?",
)  # fmt: skip
LISTED: dict[str, tuple[str, ...]] = {
    "colours": ("red", "green", "blue", "yellow", "black"),
    "colors": ("red", "green", "blue", "yellow", "black"),
    "animals": ("cat", "dog", "horse", "cow", "bird"),
    "cities": ("Paris", "London", "Berlin", "Rome", "Tokyo"),
    "fruits": ("apple", "banana", "orange", "pear", "plum"),
    "countries": ("France", "Germany", "Italy", "Japan", "China"),
    "languages": ("English", "French", "German", "Spanish", "Chinese"),
}
SUMMARIES = Pool(
    "Summarise: {x}", "Summarize this in one sentence: {x}", "{x} Summarise that.",
    "Make this shorter: {x}",
    "What is the point of this? {x}", "In short: {x}", "TL;DR of this: {x}",
    "Give me a summary. {x}",
)  # fmt: skip
STORIES = Pool(
    "{name} went to {city} by train. It was a long way. There {name} bought a {thing}.",
    "Last week {name} was in {city}. After some days {name} found a {thing} and took it home.",
    "{name} wanted a {thing}. No shop had one. In {city} at last one was for sale.",
    "It was late in {city}. {name} walked through the streets and at the end bought a {thing}.",
    "In {city} there is a market. {name} goes there often. This time it was for a {thing}.",
)  # fmt: skip
PICK = Pool(
    "Sort these: {x}", "Put these in alphabetical order: {x}", "Sort the words {x}.",
    "Order these: {x}",
    "Sort alphabetically: {x}", "Arrange from A to Z: {x}",
)  # fmt: skip
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Ireland": "Dublin", "Belgium": "Brussels",
    "Hungary": "Budapest", "England": "London", "the UK": "London", "Russia": "Moscow",
    "China": "Beijing",
    "Japan": "Tokyo", "India": "New Delhi", "Egypt": "Cairo", "Canada": "Ottawa", "Cuba": "Havana",
    "Peru": "Lima", "Brazil": "Brasília", "Argentina": "Buenos Aires", "Kenya": "Nairobi",
    "Australia": "Canberra", "South Korea": "Seoul", "Thailand": "Bangkok", "the USA": "Washington",
    "the United States": "Washington", "Switzerland": "Bern", "the Netherlands": "Amsterdam",
}  # fmt: skip
CAPITAL_ASKS = Pool(
    "What is the capital of {x}?", "Capital of {x}?", "Which city is the capital of {x}?",
    "capital of {x}",
    "Tell me the capital of {x}.", "Name the capital of {x}.", "What's the capital of {x}?",
    "What is {x}'s capital?", "Do you know the capital of {x}?", "The capital of {x} is?",
)  # fmt: skip
SIMPLE: tuple[tuple[Pool, str], ...] = (
    (Pool("What colour is the sky?", "What color is the sky?", "Which colour has the sky?",
          "Why is the sky blue?"), "The sky is blue: air scatters blue light most."),
    (Pool("How many days are in a week?", "How many days does a week have?", "Days in a week?"),
     "A week has 7 days."),
    (Pool("How many months are in a year?", "How many months does a year have?",
          "Months in a year?"),
     "A year has 12 months."),
    (Pool("How many hours are in a day?", "How many hours does a day have?", "Hours in a day?"),
     "A day has 24 hours."),
    (Pool("What are the days of the week?", "Name the days of the week.",
          "List the days of the week."),
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday."),
    (Pool("What is the largest planet?", "Which planet is the largest?",
          "Name the biggest planet."),
     "Jupiter is the largest planet of the solar system."),
    (Pool("What is water made of?", "What is the formula of water?", "What is H2O?"),
     "Water is H2O: hydrogen and oxygen."),
    (Pool("How many legs has a spider?", "How many legs does a spider have?", "Legs of a spider?"),
     "A spider has 8 legs."),
    (Pool("Say the alphabet.", "What is the alphabet?", "Write the alphabet.",
          "Recite the alphabet."),
     "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
)  # fmt: skip


def text_task(chance: Chance) -> Example:
    """One small job."""
    jobs: dict[Callable[[Chance], tuple[str, str, str]], float] = {
        _repeat: 3.0, _spell: 1.0, _count_words: 0.7, _case: 1.0, _count: 1.5, _list: 1.0,
        _summary: 1.0, _sort: 0.5,
    }  # fmt: skip
    question, content, thought = chance.weighted(jobs)(chance)
    return answered(chance, "text", question, content, thought, facts=(content,))


def knowledge(chance: Chance) -> Example:
    """The little that the model knows of the world."""
    if chance.chance(0.7):
        country = chance.of(tuple(CAPITALS))
        question = chance.pick(CAPITAL_ASKS).format(x=country)
        content = f"The capital of {country} is {CAPITALS[country]}."
        fact = CAPITALS[country]
        if chance.chance(0.15):
            before = [system(chance.of(("Answer in one word.", "One word only.")))]
            return answered(
                chance, "knowledge", question, fact, "One word.", before=before, facts=(fact,)
            )
    else:
        asks, content = chance.of(SIMPLE)
        question, fact = chance.pick(asks), content
    return answered(chance, "knowledge", question, content, "I know this.", facts=(fact,))


def _repeat(chance: Chance) -> tuple[str, str, str]:
    said = phrase(chance) if chance.chance(0.5) else text(chance)
    return chance.pick(REPEAT).format(x=said), said, "I repeat it."


def _spell(chance: Chance) -> tuple[str, str, str]:
    pool = chance.of((NAMES, CITIES, COLOURS, ANIMALS, THINGS))
    word = chance.pick(pool).split()[0]
    return chance.pick(SPELL).format(x=word), "-".join(word.upper()), f"The word is {word}."


def _count_words(chance: Chance) -> tuple[str, str, str]:
    count = chance.between(1, 7)
    words = [chance.word() for _ in range(count)]
    numbered = ", ".join(f"{i} {word}" for i, word in enumerate(words, 1))
    question = chance.pick(COUNT_WORDS).format(x=" ".join(words))
    return (
        question,
        f"{numbered}: {count} words." if count > 1 else f"{numbered}: 1 word.",
        "I count.",
    )


def _case(chance: Chance) -> tuple[str, str, str]:
    word = chance.pick(chance.of((NAMES, CITIES, COLOURS, ANIMALS, THINGS)))
    if chance.chance(0.6):
        return chance.pick(UPPER).format(x=word), word.upper(), f"I write {word} in capitals."
    return (
        chance.pick(LOWER).format(x=word.upper()),
        word.lower(),
        f"I write {word.upper()} in small letters.",
    )


def _count(chance: Chance) -> tuple[str, str, str]:
    first = chance.of((1, 1, 1, 1, 0, 2, 3, 5, 10, 20))
    last = first + chance.of((4, 9, 9, 9, 14, 19, 5, 6, 7, 29))
    last = last - 1 if first in (10, 20, 5) else last
    join = chance.of((", ", ", ", ", "))
    numbers = join.join(map(str, range(first, last + 1)))
    return chance.pick(COUNT).format(a=first, b=last), numbers, "I count one by one."


def _list(chance: Chance) -> tuple[str, str, str]:
    kind = chance.of(tuple(LISTED))
    count = chance.between(2, 5)
    lines = [f"{i}. {entry}" for i, entry in enumerate(LISTED[kind][:count], 1)]
    number = chance.of((str(count), ("two", "three", "four", "five")[count - 2]))
    return chance.pick(LISTS).format(n=number, things=kind), "\n".join(lines), "I make a list."


def _summary(chance: Chance) -> tuple[str, str, str]:
    name, city, thing = chance.pick(NAMES), chance.pick(CITIES), chance.pick(THINGS)
    story = chance.pick(STORIES).format(name=name, city=city, thing=thing)
    question = chance.pick(SUMMARIES).format(x=story)
    return question, f"{name} got a {thing} in {city}.", "I keep who, what and where."


def _sort(chance: Chance) -> tuple[str, str, str]:
    words = chance.shuffled(chance.some(chance.of((ANIMALS, COLOURS)), 3))
    question = chance.pick(PICK).format(x=", ".join(words))
    return question, ", ".join(sorted(words)), "I compare first letters."
