from worker.engine.placement import Placement
from worker.request import Request, SamplingParams

PAGE = 4
SAMPLING = SamplingParams(max_tokens=1)


def placement(pages: int = 100) -> Placement:
    return Placement(page_tokens=PAGE, model_revision="m", pages=pages, full_at=8)


def asked(prompt: str, salt: bytes = b"") -> Request:
    return Request("r", [ord(c) for c in prompt], SAMPLING, cache_salt=salt)


def test_new_prompts_go_where_there_is_least_to_do() -> None:
    assert placement().choose(asked("aaaabbbb"), [3, 1, 2]) == 1


def test_a_prompt_goes_where_its_beginning_was() -> None:
    placed = placement()
    assert placed.choose(asked("aaaabbbb"), [1, 0, 1]) == 1
    assert placed.choose(asked("aaaabbbbcccc"), [0, 5, 0]) == 1
    assert placed.choose(asked("aaaaXXXX"), [0, 5, 0]) == 1


def test_the_longest_of_several_beginnings_decides() -> None:
    placed = placement()
    placed.choose(asked("aaaabbbb"), [0, 1, 1])
    placed.choose(asked("aaaabbbb"), [8, 0, 1])  # rank 0 is full
    placed.choose(asked("aaaabbbbcccc"), [7, 8, 8])
    assert placed.choose(asked("aaaabbbbcccc"), [7, 0, 0]) == 0
    assert placed.choose(asked("aaaabbbb"), [7, 0, 3]) == 1


def test_a_part_of_a_page_is_no_prefix() -> None:
    placed = placement()
    placed.choose(asked("aaa"), [0, 1, 1])
    assert placed.choose(asked("aaab"), [1, 0, 1]) == 1


def test_another_salt_is_another_prompt() -> None:
    placed = placement()
    placed.choose(asked("aaaa", b"x"), [0, 1, 1])
    assert placed.choose(asked("aaaa", b"y"), [1, 0, 1]) == 1


def test_a_full_rank_is_passed_over_unless_all_are_as_full() -> None:
    placed = placement()
    placed.choose(asked("aaaa"), [0, 1, 1])
    assert placed.choose(asked("aaaa"), [8, 3, 2]) == 2
    placed = placement()
    placed.choose(asked("aaaa"), [0, 1, 1])
    assert placed.choose(asked("aaaa"), [9, 9, 9]) == 0


def test_only_so_many_pages_are_remembered_and_ends_are_forgotten_first() -> None:
    placed = placement(pages=3)
    placed.choose(asked("aaaabbbb"), [0, 1, 1])
    placed.choose(asked("ccccdddd"), [1, 0, 1])
    assert placed.choose(asked("aaaaXXXX"), [1, 1, 0]) == 0
    assert placed.choose(asked("aaaabbbb"), [1, 1, 0]) == 0
    placed = placement(pages=1)
    placed.choose(asked("aaaa"), [0, 1, 1])
    placed.choose(asked("bbbb"), [0, 1, 1])
    assert placed.choose(asked("aaaa"), [1, 1, 0]) == 2
