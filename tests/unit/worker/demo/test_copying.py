"""The first weights say a text again, before anything is learned."""

import random
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from worker.demo.batches import Document, on_device, packed
from worker.demo.forward import hidden, run
from worker.demo.loop import begin, candidates
from worker.demo.parameters import prepared
from worker.demo.presets import PRESETS, REDUCED_MODEL

PRESET = replace(
    PRESETS["reduced"], model=replace(REDUCED_MODEL, vocab_size=2_048), sampled_rows=1_024
)
WORDS, SEPARATOR = range(600, 1_400), 14


def said(words: list[int], answer: list[int]) -> Document:
    """Words and an answer, both with a separator after every word."""
    first, second = ([t for w in some for t in (w, SEPARATOR)] for some in (words, answer))
    return Document(
        [0, *first, *second], [False] * (1 + len(first)) + [True] * len(second), "words"
    )


def loss(documents: list[Document]) -> float:
    """Of the answers' words before the first step, in nats; without the first, which nothing
    tells."""
    state = begin("reduced", PRESET, list(range(512)), seed=0)
    losses: list[torch.Tensor] = []
    for rows in packed(documents, 1_024, seed=0):
        vocabulary = candidates(state, PRESET, "cpu")
        batch = on_device(rows, vocabulary, PRESET.model, PRESET.sampled_rows, seed=0)
        weights = prepared(
            state.tensors, PRESET.model, batch.frozen, compute=torch.float32, quantised=False
        )
        with torch.no_grad():
            streams = run(weights, PRESET.model, batch.layout)[batch.targets.rows]
            logits = hidden(weights, PRESET.model, streams) @ weights["embed"].T
        each = cross_entropy(logits, batch.targets.tokens, reduction="none")
        counted = torch.from_numpy(rows.ids).flatten()[batch.targets.rows + 1] != SEPARATOR
        counted[0] = False
        losses.append(each[counted])
    return float(torch.cat(losses).mean())


def test_words_that_were_said_are_likelier_than_others() -> None:
    draw = random.Random(1)
    heard = [draw.sample(WORDS, 40) for _ in range(8)]
    others = [draw.sample(WORDS, 40) for _ in range(8)]
    again = loss([said(words, words) for words in heard])
    assert again < loss([said(a, b) for a, b in zip(heard, others, strict=True)]) - 1.5
