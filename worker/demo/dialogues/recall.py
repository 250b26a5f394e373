"""What was said one to six turns ago, corrections included."""

from worker.demo.dialogues import product
from worker.demo.dialogues.chance import Chance, Pool, system, user
from worker.demo.dialogues.example import Example, Message
from worker.demo.dialogues.small_talk import small_talk
from worker.demo.dialogues.turns import PLAIN_SYSTEM_PROMPTS, answered, said
from worker.demo.dialogues.values import DRAW, written

# Kind of value, ways to say it, the reply, ways to correct it, questions, the answer.
REMEMBERED: tuple[tuple[str, Pool, str, Pool, Pool, str], ...] = (
    (
        "name",
        Pool("My name is {v}.", "I am {v}.", "Hello, I'm {v}.", "Call me {v}.",
             "Hi! My name is {v}.",
             "People call me {v}.", "my name is {v}", "This is {v} speaking.", "Hi, {v} here."),
        "Hello {v}!",
        Pool("No, my name is {v}.", "Sorry, it is {v}.", "I meant {v}.", "Correction: I am {v}."),
        Pool("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
             "How am I called?", "what is my name", "Tell me my name.", "Can you tell me my name?"),
        "Your name is {v}.",
    ),
    (
        "colour",
        Pool("My favourite colour is {v}.", "I like {v} best.", "My favorite color is {v}.",
             "The colour I love is {v}.", "I paint everything {v}."),
        "{v} is a nice colour.",
        Pool("No, it is {v}.", "Sorry, I meant {v}.", "Correction: {v}."),
        Pool("What is my favourite colour?", "Which colour do I like?",
             "What is my favorite color?",
             "Do you remember my colour?", "Tell me my favourite colour."),
        "Your favourite colour is {v}.",
    ),
    (
        "city",
        Pool("I live in {v}.", "My home is {v}.", "I come from {v}.", "I am from {v}.",
             "I moved to {v}.",
             "My city is {v}."),
        "{v} is noted.",
        Pool("No, it is {v}.", "Sorry, I meant {v}.", "Correction: {v}."),
        Pool("Where do I live?", "Which city do I live in?", "Where am I from?", "What is my city?",
             "Do you remember where I live?"),
        "You live in {v}.",
    ),
    (
        "integer",
        Pool("Remember the number {v}.", "My number is {v}.", "The secret number is {v}.",
             "Please keep {v} in mind.", "Note the number {v}.", "My lucky number is {v}."),
        "I will remember {v}.",
        Pool("No, it is {v}.", "Sorry, I meant {v}.", "Correction: {v}."),
        Pool("What was the number?", "Which number did I tell you?", "What is my number?",
             "Tell me the number.", "What number should you remember?"),
        "The number is {v}.",
    ),
    (
        "text",
        Pool("The password is {v}.", "Remember the word {v}.", "My code is {v}.",
             "The code word is {v}.",
             "Please remember {v}.", "The secret word is {v}.", "Keep this: {v}."),
        "I will remember {v}.",
        Pool("No, it is {v}.", "Sorry, I meant {v}.", "Correction: {v}."),
        Pool("What was the word?", "What is the password?", "Which word did I tell you?",
             "What is the code?", "What did I ask you to remember?", "Tell me the secret word."),
        "It is {v}.",
    ),
    (
        "thing",
        Pool("I bought a {v}.", "I have a new {v}.", "Yesterday I got a {v}.",
             "My gift was a {v}."),
        "A {v}, nice!",
        Pool("No, it was a {v}.", "Sorry, I meant a {v}.", "Correction: a {v}."),
        Pool("What did I buy?", "What do I have?", "What did I get?", "Which thing did I mention?"),
        "You told me of a {v}.",
    ),
)  # fmt: skip
CORRECTED = "Thank you, I have corrected that: {v}."
TOLD_AT_ONCE = Pool(
    "{a} {q}", "{a} Now tell me: {q}", "{a} So: {q}", "{a}\n{q}", "Listen. {a} {q}",
)  # fmt: skip


def recall(chance: Chance) -> Example:
    """Something told, other things said, then asked for."""
    kind, tells, reply, corrections, questions, answer = chance.of(REMEMBERED)
    value = written(DRAW[kind](chance))
    told = chance.pick(tells).format(v=value)
    question = chance.pick(questions)
    before: list[Message] = []
    if chance.chance(0.12):
        question = chance.pick(TOLD_AT_ONCE).format(a=told, q=question)
    elif chance.chance(0.12):
        name = chance.pick(PLAIN_SYSTEM_PROMPTS)
        before = [system(f"{name} The user said: {told}")]
    else:
        before = [user(told), said(chance, reply.format(v=value), "I keep this in mind.")]
        if chance.chance(0.2):
            value = written(DRAW[kind](chance))
            before.append(user(chance.pick(corrections).format(v=value)))
            before.append(said(chance, CORRECTED.format(v=value), "The user corrects it."))
        for _ in range(chance.weighted({0: 4.0, 1: 3.0, 2: 1.5, 3: 0.7, 4: 0.4})):
            before += _between(chance, kind)
    return answered(
        chance,
        "recall",
        question,
        answer.format(v=value),
        f"The user told me: {value}.",
        before=before,
        facts=(value,),
    )


def _between(chance: Chance, kind: str) -> list[Message]:
    """A turn about something else, perhaps another thing to remember."""
    if chance.chance(0.35):
        other = chance.of([entry for entry in REMEMBERED if entry[0] != kind])
        if {kind, other[0]} == {"integer", "text"}:
            return product.earlier_talk(chance)
        value = written(DRAW[other[0]](chance))
        told = chance.pick(other[1]).format(v=value)
        return [user(told), said(chance, other[2].format(v=value), "I keep this in mind.")]
    if chance.chance(0.4):
        talk = small_talk(chance).messages[-2:]
        if "not told me" not in talk[1]["content"]:
            return list(talk)
    return product.earlier_talk(chance)
