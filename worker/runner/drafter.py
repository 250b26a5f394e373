"""Guesses each sequence's next tokens with the model's own draft head. The model runner calls it.

The head runs once over what a step has settled, then on from its own guesses. Rows of guesses go
into its ring like the others: the next step overwrites them, right or wrong. Of a prompt chunk only
the last window is run, because nothing before it is ever seen again.

A snapshot at the end of a page holds one row that was computed with the token that followed then,
and its oldest rows may have made way for guesses. Both may cost a draft, never a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from worker.batch import ScheduledSequence, TokenLogprob
from worker.config import EngineConfig, ModelConfig
from worker.model.layer_cache import LayerCache
from worker.model.mtp import DraftHead
from worker.model.ragged import lay_out
from worker.runner.sampler import choose


@dataclass(frozen=True, slots=True)
class _Run:
    """Positions of one sequence to run the head over: from `start` on, each position's token is
    followed by the one in `followers`. `newest`: the last of these is the sequence's last token."""

    sequence: ScheduledSequence
    start: int
    followers: list[int]
    newest: bool

    def then(self, token_id: int) -> "_Run":
        """The position after the last, followed by `token_id`."""
        return replace(self, start=self.start + len(self.followers), followers=[token_id])


class Drafter:
    """Makes exactly `EngineConfig.draft_tokens` passes of `head` a step, empty ones included, so
    that ranks which share experts can keep pace."""

    def __init__(
        self, head: DraftHead, cache: LayerCache, config: ModelConfig, engine: EngineConfig
    ) -> None:
        self.head = head
        self._cache = cache
        self._window = config.sliding_window
        # The head has a window only: entries of the other layers are not to be laid out for it.
        self._config = replace(config, compress_ratios=(0,) * len(config.compress_ratios))
        self._engine = engine

    def propose(
        self,
        sequences: Sequence[ScheduledSequence],
        first_rows: Sequence[int],
        tokens: Sequence[Sequence[TokenLogprob]],
        streams: torch.Tensor,
    ) -> dict[str, list[int]]:
        """Guesses at what comes after `tokens`, by request id, for sequences that got any.

        `streams` [T, n, D] are those of the model's last layer, where `sequences` lie from
        `first_rows` on.
        """
        settled = [
            (run, first + run.start - s.start)
            for s, first, drawn in zip(sequences, first_rows, tokens, strict=True)
            if (run := self._settled(s, drawn)).followers
        ]
        # Equally long chunks side by side are attended to together.
        settled.sort(key=lambda run_and_row: len(run_and_row[0].followers))
        rows = [row + i for run, row in settled for i in range(len(run.followers))]
        runs = [run for run, _ in settled]
        streams, last_rows = self._advance(runs, streams[rows])
        chosen = [i for i, run in enumerate(runs) if run.newest]
        runs, streams = [runs[i] for i in chosen], streams[[last_rows[i] for i in chosen]]
        guesses: dict[str, list[int]] = {run.sequence.request_id: [] for run in runs}
        for ahead in range(self._engine.draft_tokens):
            if ahead > 0:
                streams, _ = self._advance(runs, streams)
            token_ids = self._choose(runs, streams)
            for run, token_id in zip(runs, token_ids, strict=True):
                guesses[run.sequence.request_id].append(token_id)
            runs = [run.then(token_id) for run, token_id in zip(runs, token_ids, strict=True)]
        return guesses

    def step_along(self) -> None:
        """Take part in another rank's `propose`: as many passes, without a token."""
        for _ in range(self._engine.draft_tokens):
            self.head.step_along()

    def _settled(self, s: ScheduledSequence, drawn: Sequence[TokenLogprob]) -> _Run:
        """The positions of this step whose follower is known, as far as they are in the window of
        the last."""
        followers = s.token_ids[1 : len(s.token_ids) - s.draft_count]
        followers += [token.token_id for token in drawn]
        if s.next_token_id is not None:
            followers.append(s.next_token_id)
        skipped = max(0, len(followers) - self._window)
        return _Run(s, s.start + skipped, followers[skipped:], newest=bool(drawn))

    def _advance(
        self, runs: Sequence[_Run], streams: torch.Tensor
    ) -> tuple[torch.Tensor, list[int]]:
        """One pass of the head: streams [T, n, D], and the last row of each run. Nothing is
        computed for an empty one."""
        if not runs:
            self.head.step_along()
            return streams, []
        chunks = [
            replace(run.sequence, token_ids=run.followers, start=run.start, pages=[])
            for run in runs
        ]
        laid_out = lay_out(chunks, self._config, self._engine)
        return self.head(streams, laid_out, self._cache), laid_out.last_rows

    def _choose(self, runs: Sequence[_Run], streams: torch.Tensor) -> list[int]:
        """Drawn as the model's own tokens will be: two that agree in distribution then mostly
        agree in the token, too."""
        if not runs:
            return []
        positions = [run.start + len(run.followers) + 1 for run in runs]
        sampling = [run.sequence.sampling for run in runs]
        token_ids: list[int] = choose(self.head.logits(streams), sampling, positions).tolist()
        return token_ids
