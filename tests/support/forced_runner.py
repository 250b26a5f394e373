"""A model runner that walks given texts, whatever the model would say, and holds every logit it
computes on the way against those of transformers.

The scheduler above it is real: chunks, ragged batches, prefix hits, preemption and drafts come out
as they may. Discrete choices are compared on their own: where the indexer's top-k differs from
transformers', it must be a *flip* (a score gap below `TIE`, which either side may decide), it is
counted, and the walk goes on with their choice, so that every later row still has to agree.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from support.oracle import oracle_logits
from support.v4 import backend_with

from worker.batch import ScheduledSequence, SequenceOutput, TokenLogprob
from worker.config import EngineConfig
from worker.kernels import reference
from worker.kernels.entry_pool import EntryPool
from worker.model.ragged import lay_out
from worker.runner.model_runner import ModelRunner

TIE = 1e-5  # of the row's largest score, or of one


@dataclass
class Expectation:
    """What transformers computes for one text of T tokens, in one prefill."""

    token_ids: list[int]
    logits: torch.Tensor  # [T, vocab]
    chosen: list[torch.Tensor]  # a CSA layer each: [T, k] entries, -1 absent
    router_gap: torch.Tensor  # [T] the closest call of any learned router


def expectation(model: torch.nn.Module, token_ids: list[int]) -> Expectation:
    """Run transformers' model, looking on as its indexers and routers choose."""
    chosen: list[torch.Tensor] = []
    gaps = [torch.full((len(token_ids),), torch.inf)]

    def indexer(module: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        chosen.append(output[0])

    def router(module: torch.nn.Module, args: object, output: tuple[torch.Tensor, ...]) -> None:
        k, bias = module.top_k, module.e_score_correction_bias
        if k < module.num_experts:
            scores = torch.nn.functional.softplus(output[0]).sqrt() + bias
            best = scores.topk(k + 1).values
            gaps.append(best[:, k - 1] - best[:, k])

    watched = {"DeepseekV4Indexer": indexer, "DeepseekV4TopKRouter": router}
    handles = [
        module.register_forward_hook(watched[type(module).__name__])
        for module in model.modules()
        if type(module).__name__ in watched
    ]
    try:
        logits = oracle_logits(model, token_ids)
    finally:
        for handle in handles:
            handle.remove()
    return Expectation(token_ids, logits, chosen, torch.stack(gaps).amin(0))


@dataclass
class Findings:
    """What a walk came upon. `errors`: of every row computed, over the text's largest logit, but
    of those that only rebuild a state: the first of them see too little, and nobody sees them."""

    errors: list[tuple[str, int, float]] = field(default_factory=list)
    wrong_choices: list[tuple[str, int, float]] = field(default_factory=list)
    flips: int = 0
    decoded_rows: int = 0
    failed_drafts: int = 0
    rebuilding_rows: int = 0


class ForcedRunner(ModelRunner):
    """`expected` has an entry for each request id. Drafts are right as often as not."""

    def __init__(
        self, directory: Path, engine: EngineConfig, expected: dict[str, Expectation], seed: int
    ) -> None:
        engine = replace(engine, kernels=backend_with(index_top=self.index_top))
        super().__init__(directory, engine)
        self.expected = expected
        self.findings = Findings()
        self.random = random.Random(seed)
        self.rows: list[tuple[str, int]] = []  # of the forward in progress: whose, and where
        self.selected_rows = 0

    def index_top(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        keys: EntryPool,
        block_table: torch.Tensor,
        visible: torch.Tensor,
        entries: int,
        k: int,
    ) -> torch.Tensor:
        """Transformers' choice, after a look at how ours would differ."""
        scores = reference.index_scores(query, weights, keys, block_table, entries).flatten(0, 1)
        layer, first = divmod(self.selected_rows, len(self.rows))
        self.selected_rows += len(scores)
        ours = reference.select_top(scores, visible, k)
        theirs = torch.full_like(ours, -1)
        for i, (name, position) in enumerate(self.rows[first : first + len(scores)]):
            expected = self.expected[name]
            if position >= len(expected.token_ids) or not self._on_text(name, position):
                theirs[i] = ours[i]  # behind a wrong draft; never seen again
                continue
            entries = expected.chosen[layer][position]
            entries = entries[entries >= 0].sort().values
            theirs[i, : len(entries)] = entries
            rebuilding = position < self.sequences[name].known_tokens
            if not rebuilding and not torch.equal(theirs[i], ours[i]):
                self._judge(name, position, scores[i], ours[i], theirs[i])
        return theirs

    def _judge(
        self,
        name: str,
        position: int,
        scores: torch.Tensor,
        ours: torch.Tensor,
        theirs: torch.Tensor,
    ) -> None:
        mine, other = set(ours.tolist()) - {-1}, set(theirs.tolist()) - {-1}
        apart = [scores[sorted(s)] for s in (mine - other, other - mine)]
        gap = float("inf")
        if len(mine) == len(other):
            gap = float((apart[0].max() - apart[1].min()).abs())
        if gap <= TIE * max(1.0, float(scores.abs().max())):
            self.findings.flips += 1
        else:
            self.findings.wrong_choices.append((name, position, gap))

    def _forward(self, sequences: Sequence[ScheduledSequence]) -> list[SequenceOutput]:
        self.sequences = {s.request_id: s for s in sequences}
        self.rows = [
            (s.request_id, s.start + i) for s in sequences for i in range(len(s.token_ids))
        ]
        self.selected_rows = 0
        laid_out = lay_out(sequences, self.config, self.engine)
        logits = self.model.logits(self.model(laid_out, self.kv.layers))
        self.forward_count += 1
        split = logits.split([len(s.token_ids) for s in sequences])
        return [self._walk(s, rows) for s, rows in zip(sequences, split, strict=True)]

    def _walk(self, s: ScheduledSequence, rows: torch.Tensor) -> SequenceOutput:
        expected = self.expected[s.request_id]
        text = expected.token_ids
        certain = len(s.token_ids) - s.draft_count
        right = 0
        while right < s.draft_count and self._on_text(s.request_id, s.start + certain + right):
            right += 1
        stop = s.start + certain + right
        self.findings.failed_drafts += s.draft_count - right
        error = (rows[: certain + right] - expected.logits[s.start : stop]).abs().amax(-1)
        error = error / expected.logits.abs().max()
        self.findings.errors += [
            (s.request_id, position, e)
            for position, e in enumerate(error.tolist(), s.start)
            if position >= s.known_tokens
        ]
        self.findings.rebuilding_rows += max(0, min(stop, s.known_tokens) - s.start)
        if s.sample_position is None:
            return SequenceOutput(s.request_id)
        self.findings.decoded_rows += right + 1
        drawn = [TokenLogprob(t, -1.0) for t in text[s.sample_position : stop + 1]]
        return SequenceOutput(s.request_id, drawn, draft_token_ids=self._drafts(text, stop + 1))

    def _on_text(self, name: str, position: int) -> bool:
        """Whether what is computed at `position` has only followed the text."""
        s = self.sequences[name]
        text = self.expected[name].token_ids[s.start : position + 1]
        return len(text) == position + 1 - s.start and s.token_ids[: len(text)] == text

    def _drafts(self, text: list[int], start: int) -> list[int]:
        guesses = text[start : start + self.engine.draft_tokens]
        if self.random.random() < 0.5 and guesses:
            wrong = self.random.randrange(len(guesses))
            guesses[wrong] = (guesses[wrong] + 1) % self.config.vocab_size
        return guesses
