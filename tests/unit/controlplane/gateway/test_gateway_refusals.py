import pytest

from controlplane.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    Unavailable,
    UnprocessableRequest,
)
from controlplane.gateway.refusals import EngineError, PromptExceedsLimit, TryAnother, classify

NAMED = EngineError(message="what is wrong", param="p", code="c")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, NAMED, InvalidRequest),
        (422, NAMED, UnprocessableRequest),
        (400, EngineError(), Unavailable),
        (400, EngineError(message="m", code="context_length_exceeded"), ContextLengthExceeded),
        (409, EngineError(prompt_tokens=7), PromptExceedsLimit),
        (409, EngineError(), Unavailable),
        (401, NAMED, TryAnother),
        (404, NAMED, TryAnother),
        (429, NAMED, TryAnother),
        (503, EngineError(), TryAnother),
        (500, NAMED, Unavailable),
        (301, EngineError(), Unavailable),
    ],
)
def test_a_status_and_its_meaning(status: int, error: EngineError, kind: type[Exception]) -> None:
    assert type(classify(status, error)) is kind


def test_a_refusal_keeps_its_words() -> None:
    refusal = classify(422, NAMED)
    assert isinstance(refusal, UnprocessableRequest)
    assert (refusal.message, refusal.param, refusal.code) == ("what is wrong", "p", "c")


def test_both_lengths_are_told() -> None:
    error = EngineError(code="context_length_exceeded", prompt_tokens=5000, max_model_len=4096)
    assert {"5000", "4096"} <= set(str(classify(400, error)).split())
