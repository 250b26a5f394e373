"""How much of each task the model is shown, and how often it thinks."""

import dataclasses
from collections.abc import Callable

from worker.demo.dialogues.arithmetic import arithmetic
from worker.demo.dialogues.chance import Chance
from worker.demo.dialogues.chinese import chinese
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.extraction import classification, extraction
from worker.demo.dialogues.fim import fim
from worker.demo.dialogues.forms import form_call
from worker.demo.dialogues.personas import persona
from worker.demo.dialogues.product import product
from worker.demo.dialogues.recall import recall
from worker.demo.dialogues.small_talk import refusal, small_talk
from worker.demo.dialogues.structured import json_object, json_schema
from worker.demo.dialogues.text_tasks import knowledge, text_task
from worker.demo.dialogues.tool_calls import no_tool_fits, parallel_calls, tool_call
from worker.demo.dialogues.tool_results import tool_followup
from worker.demo.dialogues.words import words

# Share of the examples. Tool calls are the longest and the hardest; words teach what they need.
WEIGHTS: dict[Callable[[Chance], Example], float] = {
    product: 13.0,
    small_talk: 5.0,
    arithmetic: 6.0,
    extraction: 5.0,
    classification: 3.0,
    json_schema: 8.0,
    json_object: 3.0,
    tool_call: 14.0,
    form_call: 4.0,
    parallel_calls: 4.0,
    no_tool_fits: 2.0,
    tool_followup: 7.0,
    recall: 7.0,
    text_task: 5.0,
    words: 12.0,
    knowledge: 1.5,
    persona: 2.0,
    refusal: 2.0,
    fim: 1.5,
    chinese: 3.0,
}
# A server thinks unless it is told not to, so newcomers see as much of one as of the other.
THINKING_SHARE = 0.4
EFFORT_SHARE, EFFORTS = 0.1, ("low", "high", "max")  # of those that think


def make(chance: Chance) -> Example:
    """An example of any task."""
    chance.thinking = chance.chance(THINKING_SHARE)
    made = chance.weighted(WEIGHTS)(chance)
    if made.thinking and chance.chance(EFFORT_SHARE):
        return dataclasses.replace(made, effort=chance.of(EFFORTS))
    return made
