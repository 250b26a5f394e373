"""A runner without a model: it keeps the KV cache as plain tokens, so that every wrong page, slot,
reset or snapshot shows as a wrong token, and draws the next token from a hash of the sequence. Its
drafts are right as often as not, and what wrong ones leave in pages and slots stays there."""

import hashlib
from dataclasses import dataclass

from worker.batch import Batch, ScheduledSequence, SequenceOutput, TokenLogprob

VOCABULARY = 50


def next_token(tokens: list[int], seed: int) -> int:
    """The token that follows `tokens`: a pure function."""
    digest = hashlib.blake2b(repr((seed, tokens)).encode(), digest_size=4).digest()
    return int.from_bytes(digest) % VOCABULARY


@dataclass
class PaperState:
    """What a slot has seen: `tokens` at positions `first`, first + 1, ... Not from the start when
    it is being rebuilt from pages; then it is right only `reach` tokens later."""

    first: int
    tokens: list[int]


class PaperRunner:
    """`pages[p]` are the tokens written to a page; `slots[s]` what a state has seen, None once
    cleared, at most `draft_tokens` of it beyond what is settled; `snapshots[n]` a state and the
    position it is of."""

    def __init__(self, page_tokens: int, draft_tokens: int = 0, reach: int | None = None) -> None:
        self.page_tokens = page_tokens
        self.draft_tokens = draft_tokens
        self.reach = reach
        self.draft_count = self.accepted_count = 0
        self.pages: dict[int, dict[int, int]] = {}
        self.slots: dict[int, PaperState | None] = {}
        self.snapshots: dict[int, tuple[int, PaperState]] = {}
        self.computed_tokens: dict[str, int] = {}
        self.forward_count = 0

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        self.forward_count += 1
        slots = [s.state_slot for s in batch.sequences]
        assert len(slots) == len(set(slots))
        for slot in batch.resets:
            self.slots[slot] = None
        for copy in batch.copies_before:
            position, state = self.snapshots[copy.snapshot]
            assert copy.token_count == position
            self.slots[copy.slot] = PaperState(state.first, list(state.tokens))
        outputs = [self._run(s) for s in batch.sequences]
        for copy in batch.copies_after:
            assert copy.token_count % self.page_tokens == 0
            state = self._exact(self.slots[copy.slot], copy.token_count)
            seen = state.tokens[: copy.token_count - state.first]
            self.snapshots[copy.snapshot] = copy.token_count, PaperState(state.first, seen)
        return outputs

    def _run(self, s: ScheduledSequence) -> SequenceOutput:
        assert s.token_ids
        state = self.slots[s.state_slot]
        if state is None:
            state = PaperState(s.start, [])
            if s.start:
                assert self.reach is not None
                assert s.known_tokens >= s.start + self.reach, "the pages do not reach far enough"
        guessed = state.first + len(state.tokens) - s.start
        assert 0 <= guessed <= self.draft_tokens, "the state is of another position"
        before = [self._read(s, i) for i in range(s.start)]
        settled = state.tokens[: s.start - state.first]
        assert before[state.first :] == settled, "pages hold other tokens"
        for position, token in enumerate(s.token_ids, s.start):
            if position < s.known_tokens:
                assert self._read(s, position) == token, "pages hold other tokens"
            else:
                self._page(s, position)[position % self.page_tokens] = token
        self.slots[s.state_slot] = PaperState(state.first, settled + s.token_ids)
        tokens = before + s.token_ids
        certain = len(s.token_ids) - s.draft_count
        assert s.next_token_id is None or s.sample_position is None
        scored = [TokenLogprob(t, -1.0) for t in s.prompt_targets or []]
        if s.sample_position is None:
            assert not s.draft_count
            self._count(s, certain)
            return SequenceOutput(s.request_id, prompt_logprobs=scored)
        assert s.sample_position == s.start + certain
        self._exact(self.slots[s.state_slot], s.sample_position)
        known = tokens[: s.sample_position]
        drawn = [next_token(known, s.sampling.seed)]
        for draft in s.draft_token_ids:
            if draft != drawn[-1]:
                break
            drawn.append(next_token([*known, *drawn], s.sampling.seed))
        self._count(s, certain + len(drawn) - 1)
        self.draft_count += s.draft_count
        self.accepted_count += len(drawn) - 1
        return SequenceOutput(
            s.request_id,
            [TokenLogprob(token, -1.0) for token in drawn],
            scored,
            draft_token_ids=self._drafts([*known, *drawn], s.sampling.seed),
        )

    def _drafts(self, tokens: list[int], seed: int) -> list[int]:
        """Each is right, after what comes before it, when that ends in an even token."""
        drafts: list[int] = []
        for _ in range(self.draft_tokens):
            right = next_token([*tokens, *drafts], seed)
            odd = [*tokens, *drafts][-1] % 2
            drafts.append((right + odd) % VOCABULARY)
        return drafts

    def _count(self, s: ScheduledSequence, settled: int) -> None:
        done = self.computed_tokens.get(s.request_id, 0)
        self.computed_tokens[s.request_id] = done + settled

    def _exact(self, state: PaperState | None, position: int) -> PaperState:
        assert state is not None
        assert state.first + len(state.tokens) >= position
        assert state.first == 0 or position - state.first >= (self.reach or 0)
        return state

    def _page(self, s: ScheduledSequence, position: int) -> dict[int, int]:
        return self.pages.setdefault(s.pages[position // self.page_tokens], {})

    def _read(self, s: ScheduledSequence, position: int) -> int:
        return self._page(s, position)[position % self.page_tokens]
