"""System prompts that change how the answer is given: a name, a form, a language, an ending."""

from worker.demo.dialogues import chinese, product
from worker.demo.dialogues.chance import Chance, Pool, system
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import name

NAMED = Pool(
    "You are {x}.", "Your name is {x}.", "You are {x}, a helpful assistant.",
    "You play the role of {x}.",
    "You are an assistant called {x}.", "Pretend to be {x}.", "Act as {x}.",
    "From now on you are {x}.",
)  # fmt: skip
WHO = Pool(
    "Who are you?", "What is your name?", "who are you", "Introduce yourself.", "What's your name?",
    "Tell me your name.", "What are you called?", "Who am I talking to?",
)  # fmt: skip
ENDING = Pool(
    "End every answer with {x}.", "Always end with {x}.", "Finish each reply with {x}.",
    "Your answers end with {x}.", "Put {x} at the end of every answer.",
)  # fmt: skip
BEGINNING = Pool(
    "Begin every answer with {x}.", "Always start with {x}.", "Start each reply with {x}.",
    "Your answers begin with {x}.", "Put {x} before every answer.",
)  # fmt: skip
ONLY = Pool(
    "Always answer {x}.", "Whatever is asked, answer {x}.", "Reply to everything with {x}.",
    "You only ever say {x}.", "Answer every question with {x}.", "Say {x} and nothing else.",
)  # fmt: skip
IN_CHINESE = Pool(
    "Answer in Chinese.", "Always answer in Chinese.", "Reply in Chinese.",
    "You speak Chinese only.",
    "Your answers are in Chinese.",
)  # fmt: skip


def persona(chance: Chance) -> Example:
    """An answer as the system prompt wants it."""
    kind = chance.weighted({"name": 3.0, "end": 1.5, "begin": 1.5, "only": 1.5, "chinese": 1.0})
    if kind == "name":
        called = name(chance)
        content = f"I am {called}."
        told = chance.pick(NAMED).format(x=called)
        return _answered(chance, told, chance.pick(WHO), content, called)
    if kind == "chinese":
        question, content, fact = chinese.greeting(chance)
        return _answered(chance, chance.pick(IN_CHINESE), question, content, fact)
    talk = product.product(chance)
    question, answer = talk.messages[-2]["content"], talk.messages[-1]["content"]
    word = chance.word()
    frame = {"end": ENDING, "begin": BEGINNING, "only": ONLY}[kind]
    content = {"end": f"{answer} {word}", "begin": f"{word} {answer}", "only": word}[kind]
    return _answered(chance, chance.pick(frame).format(x=word), question, content, word)


def _answered(chance: Chance, told: str, question: str, content: str, fact: str) -> Example:
    thought = "I follow the system prompt."
    return answered(
        chance, "persona", question, content, thought, before=[system(told)], facts=(fact,)
    )
