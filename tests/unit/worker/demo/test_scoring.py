import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.demo.dialogues import example
from worker.demo.dialogues.example import Example
from worker.demo.scoring import BARS, Tally, Verdict, judge, judge_middle, reached, tells

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "w": {"type": "string"}},
    "required": ["n"],
}


def asking(task: str, answer: dict[str, Any], **more: Any) -> Example:
    return Example(task, ({"role": "user", "content": "?"}, answer), **more)


def calls(*made: tuple[str, str]) -> dict[str, Any]:
    functions = [{"function": {"name": name, "arguments": text}} for name, text in made]
    return {"content": None, "tool_calls": functions}


@given(number=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_the_answer_to_learn_is_right(number: int) -> None:
    one = example(0, number, "held_out")
    verdict = judge_middle(one, one.fim[2]) if one.fim else judge(one, one.messages[-1])
    assert verdict == Verdict(right=True, passed=True, thought=True)


@given(number=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_an_answer_that_says_nothing_is_wrong(number: int) -> None:
    one = example(0, number, "held_out")
    nothing = {"content": "well"}
    verdict = judge_middle(one, "well") if one.fim else judge(one, nothing)
    assert not verdict.right
    assert not verdict.passed


@pytest.mark.parametrize(
    ("made", "right"),
    [
        ([("f", '{"a": 1, "b": "x"}')], True),
        ([("f", '{"b": "x", "a": 1}')], True),
        ([("f", '{"a": "1", "b": "x"}')], False),
        ([("g", '{"a": 1, "b": "x"}')], False),
        ([("f", '{"a": 1')], False),
        ([("f", '{"a": 1, "b": "x"}'), ("f", "{}")], False),
        ([], False),
    ],
)
def test_a_call_is_right_by_name_and_arguments(made: list[tuple[str, str]], right: bool) -> None:
    one = asking("tool_call", calls(("f", '{"a": 1, "b": "x"}')))
    assert judge(one, calls(*made)).right is right


def test_a_call_where_words_were_wanted_is_wrong() -> None:
    one = asking("product", {"content": "Run `make up`."}, facts=("make up",))
    assert not judge(one, {**calls(("f", "{}")), "content": "Run `make up`."}).right


@pytest.mark.parametrize(
    ("content", "right", "valid"),
    [
        ('{"n": 3, "w": "a"}', True, True),
        ('{"w": "a", "n": 3}', True, True),
        ('{"n": 4, "w": "a"}', False, True),
        ('{"n": "3", "w": "a"}', False, False),
        ('{"w": "a"}', False, False),
        ('{"n": 3', False, False),
        ("[3]", False, False),
    ],
)
def test_json_passes_when_valid_and_is_right_when_equal(
    content: str, right: bool, valid: bool
) -> None:
    told = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    one = asking("json", {"content": json.dumps({"n": 3, "w": "a"})}, response_format=told)
    verdict = judge(one, {"content": content})
    assert (verdict.right, verdict.passed) == (right, valid)


@pytest.mark.parametrize(
    ("content", "fact", "told"),
    [
        ("6 * 7 = 42", "= 42", True),
        ("6 * 70 = 420", "= 42", False),
        ("Your name is anna.", "Anna", True),
        ("Your name is Annabel.", "Anna", False),
        ("你叫 Anna。", "Anna", True),
        ("我不知道天气", "不知道", True),
        ("It costs $0.14.", "0.14", True),
    ],
)
def test_facts_are_told_as_a_whole(content: str, fact: str, told: bool) -> None:
    assert tells(content, fact) is told


@pytest.mark.parametrize(
    ("thinking", "reasoning", "as_asked"),
    [(True, "I think.", True), (True, "", False), (False, None, True), (False, "I think.", False)],
)
def test_reasoning_is_counted_where_it_is_asked_for(
    thinking: bool, reasoning: str | None, as_asked: bool
) -> None:
    one = asking("text", {"content": "x"}, thinking=thinking)
    assert judge(one, {"content": "x", "reasoning_content": reasoning}).thought is as_asked


@pytest.mark.parametrize(("passed", "enough"), [(190, True), (189, False)])
def test_a_bar_is_a_share_of_what_was_asked(passed: int, enough: bool) -> None:
    assert BARS["tool_call"].least == 0.95
    assert reached("tool_call", Tally(asked=200, right=0, passed=passed)) is enough


def test_a_task_without_a_bar_is_neither_reached_nor_missed() -> None:
    assert reached("small_talk", Tally(asked=1)) is None
