import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.v4 import ENGINE, GREEDY, SMALL, Sequences, backend_with

from worker.batch import Batch, StateCopy
from worker.errors import ConfigError
from worker.kernels.reference.quantise import quantise_activation, quantise_entry_
from worker.model.quantization import E2M1_VALUES
from worker.model.tiny import write_checkpoint
from worker.request import SamplingParams
from worker.runner.model_runner import ModelRunner

PAGE = SMALL.page_tokens


def tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(SMALL.vocab_size), k=count)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runner") / "model"
    write_checkpoint(directory, SMALL, seed=11)
    return directory


@pytest.fixture
def fresh(model: Path) -> Iterator[Sequences]:
    return Sequences(ModelRunner(model, ENGINE))


def alone(model: Path, prompt: list[int]) -> torch.Tensor:
    """Log-probabilities [vocab] after `prompt`, from a runner of its own."""
    return Sequences(ModelRunner(model, ENGINE)).logits({0: prompt})[0][-1].log_softmax(-1)


def test_outputs_keep_the_order_of_the_batch(model: Path, fresh: Sequences) -> None:
    prompts = {0: tokens(40, 1), 1: tokens(1, 2), 2: tokens(30, 3), 3: tokens(1, 4)}
    outputs = fresh.execute(prompts)
    assert [output.request_id for output in outputs] == ["0", "1", "2", "3"]
    for slot, output in enumerate(outputs):
        expected = alone(model, prompts[slot])
        assert output.tokens[0].token_id == int(expected.argmax())
        assert len(output.tokens) == 1
        assert output.tokens[0].logprob == pytest.approx(float(expected.max()), abs=1e-4)


def test_one_batch_is_one_forward(fresh: Sequences) -> None:
    fresh.execute({slot: tokens(9, slot) for slot in range(8)})
    assert fresh.runner.forward_count == 1


def test_a_batch_of_copies_alone_runs_nothing(fresh: Sequences) -> None:
    assert fresh.runner.execute(Batch([], resets=[1], copies_after=[StateCopy(0, 1, PAGE)])) == []
    assert fresh.runner.forward_count == 0


def test_a_prompt_still_being_prefilled_samples_nothing(fresh: Sequences) -> None:
    scheduled = replace(fresh.scheduled(0, tokens(20)), sample_position=None)
    [output] = fresh.runner.execute(Batch([scheduled]))
    assert (output.tokens, output.error) == ([], None)


def test_a_snapshot_continues_like_the_sequence_it_was_taken_from(
    model: Path, fresh: Sequences
) -> None:
    prefix, first, second = tokens(PAGE, 1), tokens(60, 2), tokens(70, 3)
    fresh.execute({0: prefix}, copies_after=[StateCopy(0, 5, PAGE)])
    fresh.fork(0, 6)
    fresh.execute({0: first})  # moves on; the snapshot must not
    [output] = fresh.execute({6: second}, copies_before=[StateCopy(6, 5, PAGE)])
    expected = alone(model, prefix + second)
    assert output.tokens[0].token_id == int(expected.argmax())
    assert len(output.tokens) == 1
    assert output.tokens[0].logprob == pytest.approx(float(expected.max()), abs=1e-4)


def test_slots_and_pages_used_again_bring_nothing_back(model: Path, fresh: Sequences) -> None:
    fresh.execute({0: tokens(300, 1)})
    again = Sequences(fresh.runner)  # hands out the same pages
    [output] = again.execute({0: tokens(50, 2)}, resets=[0])
    assert len(output.tokens) == 1
    expected = float(alone(model, tokens(50, 2)).max())
    assert output.tokens[0].logprob == pytest.approx(expected, abs=1e-5)


def test_a_reset_slot_is_forgotten(fresh: Sequences) -> None:
    fresh.execute({0: tokens(60), 1: tokens(60)})
    fresh.runner.execute(Batch([], resets=[0]))
    window = fresh.runner.kv.layers[0].window.data
    assert (bool(window[0].any()), bool(window[1].any())) == (False, True)


def test_prompt_logprobs_match_the_logits(model: Path, fresh: Sequences) -> None:
    prompt = tokens(150, 5)
    sampling = replace(GREEDY, prompt_logprobs=3)
    scheduled = replace(fresh.scheduled(0, prompt, sampling), prompt_targets=prompt[1:])
    [output] = fresh.runner.execute(Batch([scheduled]))
    expected = Sequences(ModelRunner(model, ENGINE)).logits({0: prompt})[0].log_softmax(-1)
    assert len(output.prompt_logprobs) == 149
    for row, scored in enumerate(output.prompt_logprobs):
        assert scored.token_id == prompt[row + 1]
        assert scored.logprob == pytest.approx(float(expected[row, scored.token_id]), abs=1e-4)
        best = expected[row].topk(3)
        assert [i for i, _ in scored.top] == best.indices.tolist()
        assert [p for _, p in scored.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_logits_that_are_not_finite_fail_their_sequence_alone(
    model: Path, fresh: Sequences
) -> None:
    prompts = {slot: tokens(300, slot) for slot in range(3)}
    fresh.execute({slot: prompt[:-1] for slot, prompt in prompts.items()})
    for layer in fresh.runner.kv.layers:
        layer.window.data[1] = torch.nan
    outputs = fresh.execute({slot: prompt[-1:] for slot, prompt in prompts.items()})
    assert outputs[1].error
    assert outputs[1].tokens == []
    for slot in (0, 2):
        assert outputs[slot].error is None
        assert outputs[slot].tokens[0].token_id == int(alone(model, prompts[slot]).argmax())


def test_pages_poisoned_by_a_failed_sequence_are_harmless_to_the_next(
    model: Path, fresh: Sequences
) -> None:
    for layer in fresh.runner.kv.layers:
        layer.window.data[:-1] = torch.nan
        for cache in (layer.entries, layer.index):
            if cache is not None:
                cache.pages.data[:-1] = torch.nan
                cache.tail[:] = torch.nan
    [output] = fresh.execute({0: tokens(60)}, resets=[0])
    assert output.tokens[0].token_id == int(alone(model, tokens(60)).argmax())


def test_a_crowd_changes_no_logprob(model: Path, fresh: Sequences) -> None:
    prompts = {slot: tokens(100 + 37 * slot, slot) for slot in range(6)}
    fresh.execute({slot: prompt[:-1] for slot, prompt in prompts.items()})
    crowd = fresh.logits({slot: prompt[-1:] for slot, prompt in prompts.items()})
    for slot, prompt in prompts.items():
        torch.testing.assert_close(
            crowd[slot][-1].log_softmax(-1), alone(model, prompt), atol=2e-4, rtol=0
        )


def test_small_tiles_change_no_logit(model: Path) -> None:
    prompt = tokens(200)
    tiled = Sequences(ModelRunner(model, replace(ENGINE, attention_tile_bytes=1)))
    whole = Sequences(ModelRunner(model, ENGINE))
    torch.testing.assert_close(
        tiled.logits({0: prompt})[0], whole.logits({0: prompt})[0], atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "official"])
def test_narrow_arithmetic_stays_near_float32(model: Path, dtype: str) -> None:
    """Near, not equal: rounding flips routers and top-k, so whole distributions are compared."""
    prompt = tokens(200, 9)
    narrow = Sequences(ModelRunner(model, replace(ENGINE, dtype=dtype)))
    rows = [narrow.logits({0: prompt[:150]})[0], narrow.logits({0: prompt[150:]})[0]]
    ours = torch.cat(rows).log_softmax(-1)
    theirs = Sequences(ModelRunner(model, ENGINE)).logits({0: prompt})[0].log_softmax(-1)
    divergence = (theirs.exp() * (theirs - ours)).sum(-1)
    unrelated = (theirs.exp() * (theirs - theirs.roll(1, 0))).sum(-1)
    assert torch.isfinite(ours).all()
    assert divergence.median() < 0.1 * unrelated.median()


def test_official_caches_hold_only_what_fp8_and_fp4_can(model: Path) -> None:
    sequences = Sequences(ModelRunner(model, replace(ENGINE, dtype="official")))
    sequences.logits({0: tokens(200)})
    for layer in sequences.runner.kv.layers:
        entries = [layer.window.data[0]]
        entries += [layer.entries.pages.data[0]] if layer.entries else []
        for stored in entries:
            rounded = stored.clone()
            quantise_entry_(rounded, SMALL.qk_rope_head_dim)
            assert stored.any()
            assert torch.equal(stored, rounded)
        if layer.index:
            for block in layer.index.pages.data[0, :50].float().view(-1, 32):
                assert len(block.abs().unique()) <= len(E2M1_VALUES)


def test_official_arithmetic_quantises_the_input_of_every_fp8_linear(model: Path) -> None:
    widths: list[int] = []

    def counting(x: torch.Tensor) -> torch.Tensor:
        widths.append(x.shape[-1])
        return quantise_activation(x)

    kernels = backend_with(quantise_activation=counting)
    engine = replace(ENGINE, dtype="official", kernels=kernels)
    Sequences(ModelRunner(model, engine)).logits({0: tokens(200)})
    layers, csa_layers = 5, 2
    # wq_a, wkv and the shared experts' pair take the hidden state; both wq_b take the latent.
    assert widths.count(SMALL.hidden_size) == 3 * layers
    assert widths.count(SMALL.q_lora_rank) == layers + csa_layers
    assert widths.count(SMALL.moe_intermediate_size) == 2 * layers  # w2, and wo_b's 2 x 32
    assert len(widths) == 6 * layers + csa_layers


def test_sampled_tokens_follow_their_own_parameters(fresh: Sequences) -> None:
    warm = SamplingParams(max_tokens=1, temperature=1.0, seed=5, logprobs=2)
    scheduled = [fresh.scheduled(0, tokens(30), warm), fresh.scheduled(1, tokens(30), GREEDY)]
    first, second = fresh.runner.execute(Batch(scheduled))
    assert len(first.tokens) == 1
    assert len(second.tokens) == 1
    assert first.tokens[0].top[0][0] == second.tokens[0].token_id
    assert second.tokens[0].top == []


def test_unknown_names_are_refused_at_start(model: Path) -> None:
    with pytest.raises(ConfigError, match="known: float32, bfloat16, official"):
        ModelRunner(model, replace(ENGINE, dtype="float16"))
    with pytest.raises(ConfigError, match="known: auto, reference, triton"):
        ModelRunner(model, replace(ENGINE, kernels="cuda"))


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_a_config_error(model: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=device):
        ModelRunner(model, replace(ENGINE, device=device))
