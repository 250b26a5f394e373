"""Words said again, and rewritten one to a line or as one line: how the model learns to copy.

The tokenizer has one token for a word behind a space and another for it at the start of a line. To
copy a word from a sentence into a call the model must know that the two are one word. This is the
only task that shows every word of both sides in training, and it asks nothing else of them. Long
lists said again are the densest lesson in copying there is: without them a small model learns
everything else first, and arguments of calls hardly at all.
"""

from worker.demo.dialogues import values
from worker.demo.dialogues.chance import Chance, Pool, capital_words, lower_words
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.turns import answered

REPEAT = Pool(
    "Repeat: {x}", "Say again: {x}", "Repeat after me: {x}", "Copy this: {x}", "Echo: {x}",
    "Say: {x}", "{x} - again, please.",
)  # fmt: skip
TO_LINES = Pool(
    "One word per line: {x}", "Write each on its own line: {x}", "Put these on lines: {x}",
    "Split into lines: {x}", "A line for each of: {x}", "Make lines of: {x}",
    "{x} One per line, please.",
)  # fmt: skip
TO_LINE = Pool(
    "Join with commas:\n{x}", "Write these in one line:\n{x}", "Make one line of:\n{x}",
    "{x}\nOn one line, please.", "Separate with commas:\n{x}", "As one list:\n{x}",
)  # fmt: skip
NAMED = (
    values.NAMES, values.CITIES, values.COLOURS, values.THINGS, values.ANIMALS, values.LANGUAGES,
    values.CURRENCIES, values.WEATHER, values.ROOMS, values.SUBJECTS, values.TICKERS,
    values.REGIONS, values.FOREIGN,
)  # fmt: skip


def words(chance: Chance) -> Example:
    """A handful of any words, or many to say again."""
    again = chance.chance(0.6)
    pools = chance.weighted({(lower_words(),): 4.0, (capital_words(),): 3.0, NAMED: 3.0})
    # Half of them are held out: those occur nowhere else.
    found = chance.distinct(
        lambda: chance.of(chance.of(pools).sides[chance.of(("train", "held_out"))]),
        chance.between(4, 80) if again else chance.between(3, 12),
    )
    if again:
        given = chance.of((" ", ", ", "\n"))
        frame, wanted = REPEAT, given
    elif chance.chance(0.6):
        frame, given, wanted = TO_LINES, chance.of((" ", ", ")), "\n"
    else:
        frame, given, wanted = TO_LINE, "\n", ", "
    question = chance.pick(frame).format(x=given.join(found))
    content = wanted.join(found)
    return answered(chance, "words", question, content, "I copy the words.", facts=(content,))
