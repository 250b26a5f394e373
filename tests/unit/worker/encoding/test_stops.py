from hypothesis import given
from hypothesis import strategies as st

from worker.encoding.stops import StopScanner

TEXT = st.text("ab", max_size=20)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def scan(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = "".join(scanner.push(piece) for piece in pieces)
    return text + scanner.finish(), scanner.stopped


@given(stops=STOPS, pieces=st.lists(TEXT))
def test_cuts_where_a_stop_string_first_completes(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    text, stopped = scan(stops, pieces)
    assert stopped == any(stop in whole for stop in stops)
    if stopped:
        assert whole.startswith(text)
        assert any(whole[len(text) :].startswith(stop) for stop in stops)
    else:
        assert text == whole


@given(stop=st.text("ab", min_size=1, max_size=4), pieces=st.lists(TEXT))
def test_one_stop_string_cuts_at_its_first_occurrence(stop: str, pieces: list[str]) -> None:
    whole = "".join(pieces)
    text, stopped = scan([stop], pieces)
    if stopped:
        assert text == whole[: whole.index(stop)]


def test_nothing_is_held_back_without_stop_strings() -> None:
    assert StopScanner([]).push("text") == "text"


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    scanner = StopScanner(["STOP"])
    assert scanner.push("go ST") == "go "
    assert scanner.push("AY") == "STAY"
    assert scanner.finish() == ""
