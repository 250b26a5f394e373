"""A publisher is asked again whatever became of the last time."""

import threading

import pytest

from controlplane.operator.runtime import telling


def test_neither_a_store_that_is_down_nor_a_defect_ends_the_telling(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telling, "INTERVAL_SECONDS", 0.001)
    answers = iter([True, False, ValueError("a defect"), True])
    told = threading.Event()

    def publish() -> bool:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            told.set()
        return answer is not False

    teller = telling.Teller("pools", publish)
    teller.start()
    assert told.wait(5)
    teller.stop()
    assert teller.join(5)
    events = [it.message for it in caplog.records]
    assert events == ["store_is_down", "telling_failed", "store_is_up"]


def test_one_that_was_never_started_has_ended() -> None:
    teller = telling.Teller("pools", lambda: True)
    teller.stop()
    assert teller.join(0)


def test_it_tells_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "INTERVAL_SECONDS", 60.0)
    told = threading.Event()

    def publish() -> bool:
        told.set()
        return True

    teller = telling.Teller("pools", publish)
    teller.start()
    assert told.wait(5)
    teller.stop()
    assert teller.join(5)
