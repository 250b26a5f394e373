"""What training minimises: the next token, the token after it, and the indexers' divergence.

Only learned tokens count. The softmax runs over the batch's candidates: every row that learns, the
rows of the batch's other tokens, and a random sample that stands for the rest of the vocabulary, so
that no token is ever likely by neglect.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, linear

from worker.config import ModelConfig
from worker.demo.forward import MTP, Trace, draft, hidden, run
from worker.demo.layout import Layout

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Targets:
    """Learned positions as rows of [B * T] and their tokens as candidate rows, once for the next
    token and once for the one after it. `shares` [learned] sum to one and say how much each next
    token counts. `offset` [C] is added to each candidate's logit: a sampled row stands for many."""

    rows: torch.Tensor
    tokens: torch.Tensor
    shares: torch.Tensor
    draft_rows: torch.Tensor
    draft_tokens: torch.Tensor
    offset: torch.Tensor


@dataclass(frozen=True, slots=True)
class Losses:
    """Nats. `answer` of the next tokens by their shares, `each` [learned] of them in the targets'
    order; the others are means. `draft_hits`: the share of guesses whose best candidate is right.
    What was not wanted is zero."""

    answer: torch.Tensor
    each: torch.Tensor
    draft: torch.Tensor
    draft_hits: torch.Tensor
    index: torch.Tensor
    load: dict[str, torch.Tensor]

    def total(self, draft_weight: float, index_weight: float) -> torch.Tensor:
        """The number to descend."""
        return self.answer + draft_weight * self.draft + index_weight * self.index


def losses(
    weights: Weights,
    config: ModelConfig,
    layout: Layout,
    targets: Targets,
    *,
    want_draft: bool,
    want_index: bool,
) -> Losses:
    """One forward's losses. `want_index`: an attention more per CSA layer, for its indexer."""
    trace = Trace(want_index)
    streams = run(weights, config, layout, trace)
    logits = _logits(weights, hidden(weights, config, streams[targets.rows]), targets)
    each = cross_entropy(logits, targets.tokens, reduction="none")
    none = streams.new_zeros(())
    drafting = hits = none
    if want_draft:
        guessed = draft(weights, config, layout, streams, trace)[targets.draft_rows]
        logits = _logits(weights, hidden(weights, config, guessed, MTP), targets)
        drafting = cross_entropy(logits, targets.draft_tokens)
        hits = (logits.detach().argmax(-1) == targets.draft_tokens).float().mean()
    index = torch.stack(trace.index).sum() if trace.index else none
    return Losses(each @ targets.shares, each.detach(), drafting, hits, index, trace.load)


def _logits(weights: Weights, x: torch.Tensor, targets: Targets) -> torch.Tensor:
    embed = weights["embed"]
    return linear(x.to(embed.dtype), embed).float() + targets.offset
