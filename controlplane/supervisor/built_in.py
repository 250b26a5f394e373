"""The models that `flashplane up` serves without being given weights, and how. A table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class BuiltInModel(StrEnum):
    """What `up` can serve without being given weights."""

    DEMO = "demo"
    TINY = "tiny"


@dataclass(frozen=True)
class Serving:
    """How one is served and told of. `context` is the longest request, in tokens, unless the
    command line tells another; `draft_tokens` are guessed ahead in each forward."""

    context: int
    draft_tokens: int
    told: str


SERVING: Mapping[BuiltInModel, Serving] = MappingProxyType(
    {
        BuiltInModel.DEMO: Serving(
            # It learned from dialogues of at most 1,024 tokens; an answer that does not end is
            # cut off within minutes.
            context=8_192,
            draft_tokens=1,
            told="The demo model is small: every part of V4-Flash, trained on this project's own "
            "dialogues.\nIt chats, calls tools and writes JSON, and knows next to nothing.",
        ),
        BuiltInModel.TINY: Serving(
            context=32_768,
            draft_tokens=0,
            told="The tiny model has random weights: it runs the whole V4-Flash architecture, and "
            "its text is noise.",
        ),
    }
)
