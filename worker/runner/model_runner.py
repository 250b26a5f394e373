"""Runs batches: the one class the engine's step loop calls.

Owns the weights and the KV tensors. Not thread-safe: one thread executes, one batch at a time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from worker.batch import Batch, ScheduledSequence, SequenceOutput, TokenLogprob
from worker.config import EngineConfig, ModelConfig
from worker.errors import ConfigError
from worker.kernels.load import load_backend
from worker.model.loader import load_weights
from worker.model.mtp import DraftHead
from worker.model.numerics import numerics
from worker.model.ragged import lay_out
from worker.model.transformer import Transformer
from worker.parallel.groups import ALONE, ExpertGroup
from worker.runner.drafter import Drafter
from worker.runner.kv_tensors import KVTensors
from worker.runner.sampler import finite
from worker.runner.verification import verify

PROMPT_ROWS = 64  # rows of logits in memory at once while scoring a prompt
NOT_FINITE = "the model produced logits that are not finite"
STUCK = "the grammar of the answer has become too complex to go on"


class ModelRunner:
    """One rank of `group`. `forward_count`: forwards so far that had tokens of its own."""

    def __init__(
        self, model_dir: str | Path, engine: EngineConfig, group: ExpertGroup = ALONE
    ) -> None:
        """Load `model_dir`, and of the routed experts this rank's. Raises ConfigError,
        CheckpointError."""
        _require_device(engine.device)
        arithmetic = numerics(engine.dtype)
        self.config = ModelConfig.from_dir(model_dir)
        kernels = load_backend(engine.kernels, self.config, engine.device)
        self.engine = engine
        weights = load_weights(
            model_dir,
            self.config,
            arithmetic.compute,
            engine.device,
            experts=group.experts(self.config.n_routed_experts),
            mtp=engine.draft_tokens > 0,
            show_progress=group.rank == 0,
        )
        self.model = Transformer(self.config, weights, arithmetic, kernels, group)
        self.kv = KVTensors(self.config, engine, arithmetic.compute)
        self.drafter: Drafter | None = None
        if self.kv.drafting is not None:
            head = DraftHead(self.model, weights, arithmetic, kernels)
            self.drafter = Drafter(head, self.kv.drafting, self.config, engine)
        self.forward_count = 0

    @torch.inference_mode()
    def execute(self, batch: Batch) -> list[SequenceOutput]:
        """One step: outputs in the order of `batch.sequences`. All ranks of a group call it
        together, with an empty batch where there is nothing to run."""
        self.kv.clear(batch.resets)
        self.kv.restore(batch.copies_before)
        if batch.sequences:
            outputs = self._forward(batch.sequences)
        else:
            outputs = []
            self._step_along()
        self.kv.keep(batch.copies_after)
        return outputs

    def _forward(self, sequences: Sequence[ScheduledSequence]) -> list[SequenceOutput]:
        # Equally long chunks side by side are attended to together; decodes first.
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].token_ids))
        ordered = [sequences[i] for i in order]
        laid_out = lay_out(ordered, self.config, self.engine)
        streams = self.model(laid_out, self.kv.layers)  # [T, n, D]
        self.forward_count += 1
        first_rows = [
            last + 1 - len(s.token_ids) for s, last in zip(ordered, laid_out.last_rows, strict=True)
        ]
        poisoned = _poisoned(ordered, first_rows, streams)
        tokens = self._sample(ordered, first_rows, streams)
        drafts: dict[str, list[int]] = {}
        if self.drafter is not None:
            drafts = self.drafter.propose(ordered, first_rows, tokens, streams)
        outputs: list[SequenceOutput] = [SequenceOutput(s.request_id) for s in sequences]
        for i, sequence, first, drawn in zip(order, ordered, first_rows, tokens, strict=True):
            if sequence.request_id in poisoned:
                outputs[i] = SequenceOutput(sequence.request_id, error=NOT_FINITE)
                continue
            chunk = streams[first : first + len(sequence.token_ids)]
            output = self._output(sequence, chunk, drawn)
            outputs[i] = replace(output, draft_token_ids=drafts.get(sequence.request_id, []))
        return outputs

    def _step_along(self) -> None:
        """What `_forward` exchanges with other ranks, in the same order, without a token."""
        self.model.step_along()
        if self.drafter is not None:
            self.drafter.step_along()

    def _sample(
        self,
        sequences: Sequence[ScheduledSequence],
        first_rows: Sequence[int],
        streams: torch.Tensor,
    ) -> list[list[TokenLogprob]]:
        """The next tokens of each sequence that asks for them, may have one and has finite
        logits."""
        asking = [i for i, s in enumerate(sequences) if s.sample_position is not None]
        drawn: list[list[TokenLogprob]] = [[] for _ in sequences]
        if asking:
            rows: list[int] = []
            for i in asking:
                stop = first_rows[i] + len(sequences[i].token_ids)
                rows += range(stop - sequences[i].draft_count - 1, stop)
            found = verify([sequences[i] for i in asking], self.model.logits(streams[rows]))
            for i, tokens in zip(asking, found, strict=True):
                drawn[i] = tokens
        return drawn

    def _output(
        self,
        sequence: ScheduledSequence,
        streams: torch.Tensor,
        tokens: list[TokenLogprob],
    ) -> SequenceOutput:
        """`streams` [len(token_ids), n, D] is the sequence's share of the forward."""
        if sequence.sample_position is not None and not tokens:
            stuck = sequence.allowed_tokens is not None and sequence.allowed_tokens[0] == b""
            return SequenceOutput(sequence.request_id, error=STUCK if stuck else NOT_FINITE)
        scored: list[TokenLogprob] = []
        if sequence.prompt_targets:
            count = sequence.sampling.prompt_logprobs or 0
            for first in range(0, len(sequence.prompt_targets), PROMPT_ROWS):
                targets = sequence.prompt_targets[first : first + PROMPT_ROWS]
                logits = self.model.logits(streams[first : first + len(targets)])
                if not bool(finite(logits).all()):
                    return SequenceOutput(sequence.request_id, error=NOT_FINITE)
                scored += _score(logits, targets, count)
        return SequenceOutput(sequence.request_id, tokens=tokens, prompt_logprobs=scored)


def _require_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used on this machine: {reason}") from error


def _poisoned(
    sequences: Sequence[ScheduledSequence], first_rows: Sequence[int], streams: torch.Tensor
) -> set[str]:
    """Requests with a prompt's token whose streams [T, n, D] are not finite: what they store must
    not be found by others before the prompt's end tells. A step without prompts asks nothing of
    the device: there the sampled tokens tell."""
    chunks: dict[str, tuple[int, int]] = {}
    for s, first in zip(sequences, first_rows, strict=True):
        sampled = 0 if s.sample_position is None else 1 + s.draft_count
        if len(s.token_ids) > sampled:
            chunks[s.request_id] = (first, first + len(s.token_ids) - sampled)
    if not chunks:
        return set()
    sound = finite(streams.flatten(1)).tolist()
    return {name for name, (first, stop) in chunks.items() if not all(sound[first:stop])}


def _score(logits: torch.Tensor, targets: list[int], count: int) -> list[TokenLogprob]:
    """Log-probabilities of `targets` [R] under `logits` [R, V], with the `count` most likely."""
    logprobs = logits.log_softmax(-1)
    wanted = torch.tensor(targets, device=logits.device).unsqueeze(1)
    own = logprobs.gather(1, wanted).squeeze(1).tolist()
    values, ids = logprobs.topk(count, dim=-1)
    tops = [
        list(zip(i, v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)
    ]
    return [TokenLogprob(t, p, top) for t, p, top in zip(targets, own, tops, strict=True)]
