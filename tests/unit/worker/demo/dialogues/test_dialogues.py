import json
import subprocess
import sys
from collections.abc import Iterator

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.demo.dialogues import Example, Split, chance, example, product
from worker.demo.dialogues.arithmetic import held_out
from worker.demo.dialogues.chance import Chance, Pool
from worker.demo.dialogues.mixture import WEIGHTS

NUMBERS = st.integers(0, 10**9)
SPLITS = st.sampled_from(["train", "held_out"])
QUICK = settings(max_examples=200, deadline=None)  # the vocabulary loads on the first


def of_task(task: str, split: Split, count: int) -> Iterator[Example]:
    (made,) = [t for t in WEIGHTS if t.__name__ == task]
    return (made(Chance(0, number, split)) for number in range(count))


def test_another_process_makes_the_same_examples() -> None:
    made = "from worker.demo.dialogues import example\n"
    made += "for n in range(50): print(example(7, n, 'train'))"
    other = subprocess.run(
        [sys.executable, "-c", made], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.splitlines() == [str(example(7, n, "train")) for n in range(50)]


@given(number=NUMBERS)
@QUICK
def test_seed_number_and_side_all_matter(number: int) -> None:
    one = example(0, number, "train")
    others = [example(1, number, "train"), example(0, number + 1, "train")]
    assert any(other != one for other in others)


@settings(max_examples=50)
@given(entries=st.lists(st.text(), min_size=2, unique=True))
def test_a_pool_has_two_sides_with_nothing_in_common(entries: list[str]) -> None:
    sides = Pool(*entries).sides
    assert sorted(sides["train"] + sides["held_out"]) == sorted(entries)
    assert sides["train"]
    assert sides["held_out"]


def test_held_out_words_are_never_in_training() -> None:
    train = {Chance(0, number, "train").word() for number in range(20_000)}
    unseen = {Chance(0, number, "held_out").word() for number in range(2_000)}
    assert len(train) > 3_000
    assert len(unseen) > 500
    assert not train & unseen


def test_held_out_product_questions_are_never_in_training() -> None:
    asked = {
        split: {one.messages[-2]["content"].lower().rstrip(".?") for one in examples}
        for split, examples in (
            ("train", of_task("product", "train", 20_000)),
            ("held_out", of_task("product", "held_out", 2_000)),
        )
    }
    assert not asked["train"] & asked["held_out"]


def test_every_fact_is_asked_on_both_sides() -> None:
    for split in ("train", "held_out"):
        answers = {one.messages[-1]["content"] for one in of_task("product", split, 3_000)}
        assert answers == {fact.answer for fact in product.facts()}


@pytest.mark.parametrize("fact", product.facts(), ids=lambda fact: fact.about[0])
def test_an_answer_tells_what_it_must_and_no_other_fact_answers_it(fact: product.Fact) -> None:
    assert all(must in fact.answer for must in fact.must)
    assert sum(fact.about[0] in other.about for other in product.facts()) == 1
    assert fact.kind in product.FRAMES


@pytest.mark.parametrize("sign", "+-*")
def test_sums_are_on_one_side_whichever_way_round(sign: str) -> None:
    sums = [(a, b) for a in range(13) for b in range(13)]
    share = sum(held_out(sign, a, b) for a, b in sums) / len(sums)
    assert 0.08 < share < 0.25
    assert all(held_out(sign, a, b) == held_out(sign, b, a) for a, b in sums)


@given(number=NUMBERS, split=SPLITS)
@QUICK
def test_calls_name_a_tool_that_is_offered_and_suit_its_schema(number: int, split: Split) -> None:
    one = example(0, number, split)
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in one.tools}
    assert len(schemas) == len(one.tools)
    for call in one.messages[-1].get("tool_calls", []) if one.messages else []:
        schema = schemas[call["function"]["name"]]
        jsonschema_rs.validator_for(schema).validate(json.loads(call["function"]["arguments"]))


@pytest.mark.parametrize("task", ["tool_call", "parallel_calls"])
def test_arguments_stand_in_the_question(task: str) -> None:
    for one in of_task(task, "held_out", 300):
        question = one.messages[-2]["content"]
        for call in one.messages[-1]["tool_calls"]:
            for value in json.loads(call["function"]["arguments"]).values():
                text = value if isinstance(value, str) else json.dumps(value)
                assert text in question


@pytest.mark.parametrize("task", ["json_schema", "json_object"])
def test_json_suits_its_schema(task: str) -> None:
    for one in of_task(task, "train", 300):
        value = json.loads(one.messages[-1]["content"])
        if one.response_format and one.response_format["type"] == "json_schema":
            schema = one.response_format["json_schema"]["schema"]
            jsonschema_rs.validator_for(schema).validate(value)


def test_what_is_recalled_was_said() -> None:
    for one in of_task("recall", "train", 300):
        said = " ".join(message["content"] for message in one.messages[:-1])
        assert one.facts[0] in said


def test_answers_are_short() -> None:
    lengths = [len(str(example(0, n, "train").messages[-1:])) for n in range(2_000)]
    assert sum(lengths) / len(lengths) < 300


def test_thinking_examples_say_what_they_think_and_others_do_not() -> None:
    for number in range(1_000):
        one = example(0, number, "train")
        if one.messages:
            assert bool(one.messages[-1].get("reasoning_content")) == one.thinking


def test_a_chance_is_what_its_weights_say() -> None:
    luck = chance.Chance(0, 0, "train")
    drawn = [luck.weighted({"a": 3.0, "b": 1.0}) for _ in range(4_000)]
    assert 0.7 < drawn.count("a") / len(drawn) < 0.8
