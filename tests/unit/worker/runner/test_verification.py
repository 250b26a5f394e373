"""Drafts in the runner: whatever is guessed, every token and every guess that follows are those of
a run without guesses."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.v4 import ENGINE, GREEDY, SMALL, Sequences, backend_with

from worker.batch import Batch, ScheduledSequence, SequenceOutput, StateCopy
from worker.kernels import reference
from worker.kernels.reference import quantise_activation
from worker.model.tiny import write_checkpoint
from worker.request import SamplingParams
from worker.runner.model_runner import NOT_FINITE, STUCK, ModelRunner

DRAFTS = 3
DRAFTING = replace(ENGINE, draft_tokens=DRAFTS)
PAGE = SMALL.page_tokens
LENGTH = PAGE + 40
WARM = SamplingParams(max_tokens=1, temperature=1.0, seed=9, top_p=0.9)


def tokens(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(SMALL.vocab_size), k=count)


def only(token_id: int) -> bytes:
    """A mask that allows one token."""
    return (1 << token_id).to_bytes(SMALL.vocab_size // 8, "little")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("verification") / "model"
    write_checkpoint(directory, SMALL, seed=11)
    return directory


@pytest.fixture(scope="module")
def runner(directory: Path) -> ModelRunner:
    return ModelRunner(directory, DRAFTING)


@pytest.fixture
def own(directory: Path) -> ModelRunner:
    """One that the test may spoil."""
    return ModelRunner(directory, DRAFTING)


@dataclass
class Forced:
    """A sequence that is made to say `truth`, by masks, with drafts of the test's choice."""

    sequences: Sequences
    slot: int
    truth: list[int]

    @property
    def length(self) -> int:
        """Positions computed."""
        return self.sequences.lengths.get(self.slot, 0)

    def prefill(self, count: int) -> ScheduledSequence:
        scheduled = self.sequences.scheduled(self.slot, self.truth[:count])
        return replace(scheduled, allowed_tokens=[only(self.truth[count])])

    def decode(self, drafts: int, right: int) -> ScheduledSequence:
        """The next token and `drafts` guesses, of which the first `right` are right."""
        at = self.length
        drafts = min(drafts, len(self.truth) - at - 2)
        guesses = self.truth[at + 1 : at + 1 + drafts]
        guesses = [g if i < right else (g + 1) % SMALL.vocab_size for i, g in enumerate(guesses)]
        scheduled = self.sequences.scheduled(self.slot, [self.truth[at], *guesses])
        return replace(
            scheduled,
            sample_position=at + 1,
            draft_count=len(guesses),
            allowed_tokens=[only(t) for t in self.truth[at + 1 : at + 2 + len(guesses)]],
        )

    def take(self, scheduled: ScheduledSequence, output: SequenceOutput) -> list[int]:
        """Count what was accepted; returns the positions of the tokens that came."""
        assert output.error is None
        at = scheduled.start + len(scheduled.token_ids) - scheduled.draft_count
        came = range(at, at + len(output.tokens))
        assert [t.token_id for t in output.tokens] == [self.truth[p] for p in came]
        self.sequences.lengths[self.slot] = at + len(output.tokens) - 1
        return list(came)


@dataclass
class Plain:
    """What a run without guesses finds: log-probabilities of the truth, and the head's guesses at
    what follows each position."""

    truth: list[int]
    logprobs: torch.Tensor
    guesses: dict[int, list[int]]


@pytest.fixture(scope="module")
def plain(directory: Path) -> Plain:
    truth = tokens(LENGTH, 1)
    fresh = Sequences(ModelRunner(directory, DRAFTING))
    rows = fresh.logits({0: truth[:-1]})[0].log_softmax(-1)
    logprobs = rows.gather(1, torch.tensor(truth[1:])[:, None])[:, 0]
    forced = Forced(fresh, 1, truth)
    guesses: dict[int, list[int]] = {}
    scheduled = forced.prefill(1)
    while True:
        [output] = fresh.runner.execute(Batch([scheduled]))
        [position] = forced.take(scheduled, output)
        guesses[position] = output.draft_token_ids
        assert len(output.draft_token_ids) == DRAFTS
        if position == LENGTH - 1:
            return Plain(truth, logprobs, guesses)
        scheduled = forced.decode(0, 0)


steps = st.lists(st.tuples(st.integers(0, DRAFTS), st.integers(0, DRAFTS)), min_size=1, max_size=12)
prompts = st.one_of(st.integers(1, 70), st.integers(PAGE - 40, PAGE + 5))


def check(
    plain: Plain, positions: list[int], output: SequenceOutput, *, guesses: bool = True
) -> None:
    for position, token in zip(positions, output.tokens, strict=True):
        assert token.logprob == pytest.approx(float(plain.logprobs[position - 1]), abs=1e-4)
    if guesses:
        assert output.draft_token_ids == plain.guesses[positions[-1]]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(prompt=prompts, other=st.integers(1, 90), steps=steps)
def test_any_guesses_change_nothing(
    runner: ModelRunner, plain: Plain, prompt: int, other: int, steps: list[tuple[int, int]]
) -> None:
    """All wrong, all right, or right at first, across windows, entries and pages; beside another
    sequence with other luck; and again from a snapshot taken on the way over the page's end."""
    sequences = Sequences(runner)
    first, second = Forced(sequences, 0, plain.truth), Forced(sequences, 1, plain.truth)
    runner.kv.clear(range(3))
    live = [(first, first.prefill(prompt)), (second, second.prefill(other))]
    kept = False
    for drafts, right in [(0, 0), *steps]:
        chunks = [scheduled for _, scheduled in live]
        outputs = runner.execute(Batch(chunks, copies_after=[StateCopy(0, 2, PAGE)]))
        for (forced, scheduled), output in zip(live, outputs, strict=True):
            positions = forced.take(scheduled, output)
            check(plain, positions, output)
            if forced is first and scheduled.start < PAGE <= forced.length:
                kept = True
                sequences.lengths[3], sequences.pages[3] = PAGE, sequences.pages[0][:1]
                runner.execute(Batch([], copies_before=[StateCopy(3, 2, PAGE)]))
        if first.length >= LENGTH - 2:
            break
        live = [(first, first.decode(drafts, right)), (second, second.decode(right, drafts))]
    if kept and prompt <= PAGE:
        again = Forced(sequences, 3, plain.truth)
        while again.length < LENGTH - 2:
            scheduled = again.decode(2, 1)
            [output] = runner.execute(Batch([scheduled]))
            check(plain, again.take(scheduled, output), output, guesses=False)


def test_right_guesses_bring_all_their_tokens(runner: ModelRunner, plain: Plain) -> None:
    forced = Forced(Sequences(runner), 5, plain.truth)
    runner.kv.clear([5])
    scheduled = forced.prefill(60)
    runner.execute(Batch([scheduled]))
    scheduled = forced.decode(DRAFTS, DRAFTS)
    [output] = runner.execute(Batch([scheduled]))
    assert len(output.tokens) == 1 + DRAFTS


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_guesses_are_drawn_like_the_tokens_they_foresee(
    own: ModelRunner, sampling: SamplingParams
) -> None:
    """Fed its own guesses, the head says the same as when its guesses come true."""
    sequences = Sequences(own)
    [output] = own.execute(Batch([sequences.scheduled(0, tokens(50, 2), sampling)]))
    again = Sequences(own)
    own.kv.clear([0])
    [same] = own.execute(Batch([again.scheduled(0, tokens(50, 2), sampling)]))
    assert same.draft_token_ids == output.draft_token_ids
    assert len(output.draft_token_ids) == DRAFTS
    other = replace(sampling, seed=10)
    own.kv.clear([0])
    [moved] = own.execute(Batch([Sequences(own).scheduled(0, tokens(50, 2), other)]))
    assert (moved.draft_token_ids == output.draft_token_ids) == (sampling is GREEDY)


def test_a_prompt_in_chunks_is_drafted_for_like_a_whole_one(runner: ModelRunner) -> None:
    prompt = tokens(200, 3)
    runner.kv.clear(range(2))
    [whole] = runner.execute(Batch([Sequences(runner).scheduled(0, prompt)]))
    sequences = Sequences(runner)
    for start, stop in ((0, 90), (90, 91), (91, 199)):
        chunk = sequences.scheduled(1, prompt[start:stop])
        chunk = replace(chunk, sample_position=None, next_token_id=prompt[stop])
        [output] = runner.execute(Batch([chunk]))
        assert (output.tokens, output.draft_token_ids) == ([], [])
    [last] = runner.execute(Batch([sequences.scheduled(1, prompt[199:])]))
    assert last.tokens[0].token_id == whole.tokens[0].token_id
    assert last.draft_token_ids == whole.draft_token_ids


def test_a_guess_behind_which_nothing_is_finite_ends_the_step(own: ModelRunner) -> None:
    truth = tokens(60, 4)
    truth[52] = 7
    own.model.embed[7] = torch.nan
    forced = Forced(Sequences(own), 0, truth)
    scheduled = forced.prefill(50)
    forced.take(scheduled, own.execute(Batch([scheduled]))[0])
    scheduled = forced.decode(3, 3)
    [output] = own.execute(Batch([scheduled]))
    assert forced.take(scheduled, output) == [51, 52]
    [output] = own.execute(Batch([forced.decode(0, 0)]))
    assert (output.tokens, output.error) == ([], NOT_FINITE)


def test_a_guess_behind_which_nothing_is_allowed_ends_the_step(own: ModelRunner) -> None:
    forced = Forced(Sequences(own), 0, tokens(60, 4))
    scheduled = forced.prefill(50)
    forced.take(scheduled, own.execute(Batch([scheduled]))[0])
    scheduled = forced.decode(1, 1)
    assert scheduled.allowed_tokens is not None
    stuck = replace(scheduled, allowed_tokens=[scheduled.allowed_tokens[0], b""])
    [output] = own.execute(Batch([stuck]))
    assert forced.take(scheduled, output) == [51]
    [output] = own.execute(Batch([replace(forced.decode(0, 0), allowed_tokens=[b""])]))
    assert (output.tokens, output.error) == ([], STUCK)


def test_a_head_gone_wrong_costs_drafts_alone(own: ModelRunner, plain: Plain) -> None:
    assert own.kv.drafting is not None
    forced = Forced(Sequences(own), 0, plain.truth)
    live = forced.prefill(60)
    for _ in range(4):
        own.kv.drafting.window.data[0] = torch.nan
        [output] = own.execute(Batch([live]))
        for position, token in zip(forced.take(live, output), output.tokens, strict=True):
            assert token.logprob == pytest.approx(float(plain.logprobs[position - 1]), abs=1e-4)
        assert all(0 <= guess < SMALL.vocab_size for guess in output.draft_token_ids)
        live = forced.decode(2, 1)


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_the_head_runs_equally_often_whatever_the_batch(
    directory: Path, sampling: SamplingParams
) -> None:
    passes: list[int] = []

    def counting(x: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        passes.append(len(x))
        return reference.grouped_experts(x, *rest, **options)  # type: ignore[arg-type]

    kernels = backend_with(grouped_experts=counting)
    sequences = Sequences(ModelRunner(directory, replace(DRAFTING, kernels=kernels)))
    for chunks in ({0: 40}, {0: 1, 1: 30, 2: 1}, {0: 1}):
        passes.clear()
        scheduled = [sequences.scheduled(s, tokens(n, s), sampling) for s, n in chunks.items()]
        sequences.runner.execute(Batch(scheduled))
        assert len(passes) == SMALL.num_hidden_layers + DRAFTS
        # Of a prompt the last window is enough, and after it one row of each sequence.
        recent = sum(min(n, SMALL.sliding_window) for n in chunks.values())
        assert passes[SMALL.num_hidden_layers :] == [recent] + [len(chunks)] * (DRAFTS - 1)


def test_official_arithmetic_quantises_the_inputs_of_the_head(directory: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def counting(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return quantise_activation(x)

    kernels = backend_with(quantise_activation=counting)
    engine = replace(ENGINE, dtype="official", kernels=kernels, draft_tokens=1)
    sequences = Sequences(ModelRunner(directory, engine))
    [output] = sequences.execute({0: tokens(20, 6)})
    assert len(output.draft_token_ids) == 1
    width = SMALL.hidden_size
    # Of its linears only these two come before a block that is like any other.
    assert shapes[-8:-6] == [(20, width), (20, SMALL.hc_mult, width)]
