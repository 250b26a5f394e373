"""A runner without a model: it keeps the KV cache as plain tokens, so that every wrong page, slot,
reset or snapshot shows as a wrong token, and draws the next token from a hash of the sequence. Its
drafts are right as often as not, and what wrong ones leave in pages and slots stays there."""

import hashlib

from worker.batch import Batch, ScheduledSequence, SequenceOutput, TokenLogprob

VOCABULARY = 50


def next_token(tokens: list[int], seed: int) -> int:
    """The token that follows `tokens`: a pure function."""
    digest = hashlib.blake2b(repr((seed, tokens)).encode(), digest_size=4).digest()
    return int.from_bytes(digest) % VOCABULARY


class PaperRunner:
    """`pages[p]` are the tokens written to a page; `slots[s]` all tokens a state has seen, at most
    `draft_tokens` of them beyond what is settled."""

    def __init__(self, page_tokens: int, draft_tokens: int = 0) -> None:
        self.page_tokens = page_tokens
        self.draft_tokens = draft_tokens
        self.draft_count = self.accepted_count = 0
        self.pages: dict[int, dict[int, int]] = {}
        self.slots: dict[int, list[int]] = {}
        self.computed_tokens: dict[str, int] = {}
        self.forward_count = 0

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        self.forward_count += 1
        slots = [s.state_slot for s in batch.sequences]
        assert len(slots) == len(set(slots))
        for slot in batch.resets:
            self.slots[slot] = []
        for source, destination in batch.copies_before:
            self.slots[destination] = list(self.slots[source])
        outputs = [self._run(s) for s in batch.sequences]
        for source, destination in batch.copies_after:
            assert destination not in slots
            self.slots[destination] = list(self.slots[source])
        return outputs

    def _run(self, s: ScheduledSequence) -> SequenceOutput:
        assert s.token_ids
        state = self.slots[s.state_slot]
        assert 0 <= len(state) - s.start <= self.draft_tokens, "the state is of another position"
        state = state[: s.start]
        assert [self._read(s, i) for i in range(s.start)] == state, "pages hold other tokens"
        for offset, token in enumerate(s.token_ids):
            page, at = divmod(s.start + offset, self.page_tokens)
            self.pages.setdefault(s.pages[page], {})[at] = token
        self.slots[s.state_slot] = tokens = state + s.token_ids
        certain = len(s.token_ids) - s.draft_count
        assert s.next_token_id is None or s.sample_position is None
        scored = [TokenLogprob(t, -1.0) for t in s.prompt_targets or []]
        if s.sample_position is None:
            assert not s.draft_count
            self._count(s, certain)
            return SequenceOutput(s.request_id, prompt_logprobs=scored)
        assert s.sample_position == s.start + certain
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

    def _read(self, s: ScheduledSequence, position: int) -> int:
        page, at = divmod(position, self.page_tokens)
        return self.pages[s.pages[page]][at]
