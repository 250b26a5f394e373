"""Questions about Flashplane. What is true stands in facts.toml; here is how people ask."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worker.demo.dialogues.chance import Chance, Pool, assistant, user
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered, said

FRAMES = {
    "what": Pool(
        "What is {x}?",
        "what is {x}",
        "What's {x}?",
        "Explain {x}.",
        "Please explain {x}.",
        "Can you explain {x}?",
        "Could you explain what {x} is?",
        "Tell me about {x}.",
        "tell me about {x}",
        "What do you mean by {x}?",
        "What does {x} mean?",
        "Describe {x}.",
        "Describe {x} in one sentence.",
        "Define {x}.",
        "I do not understand {x}. Can you help?",
        "In one sentence: what is {x}?",
        "What should I know about {x}?",
        "Hi! What is {x}?",
        "Quick question: what is {x}?",
        "Explain {x} like I'm five.",
        "I read about {x}. What is it?",
        "What can you tell me about {x}?",
        "Give me a short explanation of {x}.",
        "Do you know what {x} is?",
        "Help me understand {x}.",
    ),
    "how": Pool(
        "How do I {x}?",
        "how do i {x}",
        "How can I {x}?",
        "How can I {x} with Flashplane?",
        "How to {x}?",
        "I want to {x}. How?",
        "I want to {x}.",
        "I would like to {x}. What do I do?",
        "I need to {x}.",
        "What do I do to {x}?",
        "What must I do to {x}?",
        "Tell me how to {x}.",
        "Please tell me how to {x}.",
        "Show me how to {x}.",
        "Is there a way to {x}?",
        "What is the way to {x}?",
        "Can you tell me how to {x}?",
        "Can I {x}?",
        "Hello, how do I {x}?",
        "Where can I {x}?",
        "What is the best way to {x}?",
        "Help me {x}.",
        "My task is to {x}. What next?",
        "Could you explain how I {x}?",
        "Which step lets me {x}?",
    ),
    "ask": Pool(
        "{x}",
        "Please tell me: {x}",
        "Hello! {x}",
        "Hi, {x}",
        "{x} Thanks.",
        "{x} Please be brief.",
        "Quick question: {x}",
        "A question about Flashplane: {x}",
        "One more thing. {x}",
        "I wonder: {x}",
        "{x} In one sentence, please.",
        "Help me out. {x}",
        "Hey. {x}",
        "{x} I am new here.",
        "I am curious. {x}",
        "My colleague asks: {x}",
        "Question: {x}",
        "{x} Just the facts.",
    ),
}
THOUGHTS = {
    "what": "The user asks what {x} is. I know this from Flashplane's documentation.",
    "how": "The user wants to {x}. I know the way.",
    "ask": "This is a question about Flashplane that I can answer.",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know and the ways it is called."""

    kind: str
    about: tuple[str, ...]
    answer: str
    must: tuple[str, ...]


@cache
def facts() -> tuple[Fact, ...]:
    """All of facts.toml."""
    document = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))
    return tuple(
        Fact(f["kind"], tuple(f["about"]), f["answer"], tuple(f["must"])) for f in document["fact"]
    )


def product(chance: Chance) -> Example:
    """A question, sometimes the second or third of a conversation. Held out are the frames: what
    is put into them is what the fact is called, and must be known."""
    before = []
    for _ in range(chance.weighted({0: 8.0, 1: 1.5, 2: 0.5})):
        question, fact, thought = _question(chance)
        before += [user(question), said(chance, fact.answer, thought)]
    question, fact, thought = _question(chance)
    return answered(
        chance, "product", question, fact.answer, thought, before=before, facts=fact.must
    )


def earlier_talk(chance: Chance) -> list[dict[str, str]]:
    """A question and its answer, to stand between others."""
    question, fact, _ = _question(chance)
    return [user(question), assistant(fact.answer)]


def _question(chance: Chance) -> tuple[str, Fact, str]:
    fact = chance.of(facts())
    about = chance.of(fact.about)
    frame = chance.pick(FRAMES[fact.kind])
    question = frame.format(x=about)
    if chance.chance(0.1):
        question = question.lower()
    if chance.chance(0.1):
        question = question.rstrip("?.")
    return question, fact, THOUGHTS[fact.kind].format(x=about)
