"""Random geometries under a real scheduler, every logit against transformers' deepseek_v4.

Each text is computed by transformers in one prefill. Ours arrives at the same rows in chunks, token
by token, in ragged batches, behind drafts that fail, after prefix-cache hits and after preemptions:
the relative error must stay below 1e-5 on every one of them.
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from support.forced_runner import TIE, ForcedRunner, expectation
from support.oracle import TOLERANCE, model_on_disk, oracle, tokens
from support.v4 import SMALL

from worker.cache.manager import CacheManager
from worker.config import CSA_RATIO, EngineConfig, ModelConfig, Yarn
from worker.model.checkpoint import expected_tensors
from worker.request import Request, SamplingParams
from worker.scheduler import Scheduler


@dataclass(frozen=True)
class Traffic:
    """Texts and how the engine gets to work on them. The second shares `shared_tokens` with the
    first, and the fourth is the first again. `outputs`: the last tokens of each are decoded."""

    lengths: tuple[int, int, int]
    shared_tokens: int
    outputs: tuple[int, int, int, int]
    arrivals: tuple[int, int, int]  # before which step; the fourth comes when all are done
    budget: int
    sequences: int
    spare_pages: int
    snapshots: int
    draft_tokens: int
    seed: int


def loads_in_transformers(config: ModelConfig) -> bool:
    """Its reader divides a matrix evenly among its scales, so ragged last blocks are beyond it."""
    quantised = (s for s in expected_tensors(config).values() if s.dtype == "F8_E4M3")
    return all(side <= 128 or side % 128 == 0 for spec in quantised for side in spec.shape)


@st.composite
def geometries(draw: st.DrawFn) -> ModelConfig:
    hca = draw(st.sampled_from([8, 16, 24, 32, 128]))  # transformers knows one rate a model
    layers = draw(st.lists(st.sampled_from([0, CSA_RATIO, CSA_RATIO, hca]), min_size=2, max_size=6))
    rope = draw(st.sampled_from([8, 16, 32]))
    groups = draw(st.sampled_from([1, 2, 4]))
    experts = draw(st.integers(3, 12))
    yarn = st.builds(
        Yarn,
        st.sampled_from([4.0, 16.0]),
        st.just(32.0),
        st.just(1.0),
        st.sampled_from([128, 4_096, 65_536]),
    )
    return replace(
        SMALL,
        hidden_size=draw(st.sampled_from([32, 64, 96, 128, 256])),
        compress_ratios=(*layers, 0),
        num_hidden_layers=len(layers),
        num_hash_layers=draw(st.integers(0, len(layers))),
        qk_rope_head_dim=rope,
        head_dim=rope + 8 * draw(st.integers(1, 6)),
        o_groups=groups,
        num_attention_heads=groups * draw(st.integers(1, 3)),
        q_lora_rank=draw(st.integers(20, 128)),
        index_n_heads=draw(st.sampled_from([32, 40, 64])),
        index_head_dim=draw(st.sampled_from([32, 64])),
        index_topk=draw(st.integers(3, 60)),
        sliding_window=draw(st.integers(1, 140)),
        n_routed_experts=experts,
        num_experts_per_tok=draw(st.integers(1, experts)),
        moe_intermediate_size=32 * draw(st.integers(1, 3)),
        hc_mult=draw(st.integers(1, 4)),
        hc_sinkhorn_iters=draw(st.integers(1, 20)),
        rope_scaling=draw(st.none() | yarn),
    )


def traffic() -> st.SearchStrategy[Traffic]:
    length, outputs = st.integers(300, 560), st.integers(1, 40)
    return st.builds(
        Traffic,
        lengths=st.tuples(length, length, length),
        shared_tokens=st.sampled_from([0, 100, 256, 299]),
        outputs=st.tuples(outputs, outputs, outputs, outputs),
        arrivals=st.tuples(st.just(0), st.integers(0, 25), st.integers(0, 25)),
        budget=st.sampled_from([24, 61, 200, 1_000]),
        sequences=st.integers(1, 3),
        spare_pages=st.sampled_from([0, 1, 2, 9]),
        snapshots=st.sampled_from([0, 2, 5]),
        draft_tokens=st.integers(0, 3),
        seed=st.integers(0, 10_000),
    )


def walk(config: ModelConfig, plan: Traffic, directory: Path, seen: Counter[str]) -> ForcedRunner:
    """Compute all texts; `seen` counts what happened on the way."""
    first, second, third = (
        tokens(n, config.vocab_size, seed=plan.seed + i) for i, n in enumerate(plan.lengths)
    )
    second[: plan.shared_tokens] = first[: plan.shared_tokens]
    model = oracle(directory, config)
    texts = {"a": first, "b": second, "c": third}
    expected = {name: expectation(model, text) for name, text in texts.items()}
    expected["again"] = expected["a"]
    longest = max(plan.lengths)
    engine = EngineConfig(
        max_model_len=longest,
        max_sequences=plan.sequences,
        max_batch_tokens=plan.budget,
        pages=-(-longest // config.page_tokens) + plan.spare_pages,
        snapshots_kept=plan.snapshots,
        draft_tokens=plan.draft_tokens,
        attention_tile_bytes=random.Random(plan.seed).choice([1 << 16, 64 << 20]),
    )
    runner = ForcedRunner(directory, engine, expected, plan.seed)
    scheduler = Scheduler(
        CacheManager(
            pages=engine.pages,
            state_slots=engine.max_sequences,
            snapshots=engine.snapshots_kept,
            page_tokens=config.page_tokens,
            snapshot_interval_pages=random.Random(plan.seed).choice([0, 1, 2]),
            state_reach_tokens=config.state_reach_tokens,
        ),
        max_sequences=engine.max_sequences,
        max_batch_tokens=engine.max_batch_tokens,
        max_model_len=longest,
    )
    requests = {
        name: Request(name, e.token_ids[:-n], SamplingParams(max_tokens=n), fairness_key=name)
        for (name, e), n in zip(expected.items(), plan.outputs, strict=True)
    }
    for step in range(2_000):
        for name, arrival in zip("abc", plan.arrivals, strict=True):
            if arrival == step:
                scheduler.add(requests[name])
        batch = scheduler.schedule()
        scheduler.check()
        if batch is not None:
            scheduler.update(runner.execute(batch))
        elif step > max(plan.arrivals):
            if requests["again"].finish_reason is not None:
                break
            scheduler.add(requests["again"])
    assert all(r.finish_reason for r in requests.values())
    for name, r in requests.items():
        assert r.prompt_token_ids + r.output_token_ids == expected[name].token_ids
    seen["preemptions"] += scheduler.take_preemptions()
    seen["prefix-cache hits"] += sum(r.cache_hit_tokens > 0 for r in requests.values())
    return runner


def judge(runner: ForcedRunner, seen: Counter[str]) -> None:
    found = runner.findings
    seen["rows"] += len(found.errors)
    seen["decoded rows"] += found.decoded_rows
    seen["failed drafts"] += found.failed_drafts
    seen["rows that rebuild a state"] += found.rebuilding_rows
    seen["top-k flips"] += found.flips
    assert not found.wrong_choices
    close = {name: e.router_gap < TIE for name, e in runner.expected.items()}
    for name, position, error in found.errors:
        if error > TOLERANCE or error != error:
            # Both sides of a router's close call are right, and every later row sees the choice.
            note(f"{name} at {position}: {error}")
            assert close[name][: position + 1].any()
            seen["rows behind a router's close call"] += 1


def check(config: ModelConfig, plan: Traffic, seen: Counter[str]) -> None:
    with model_on_disk(config, plan.seed) as directory:
        judge(walk(config, plan, directory, seen), seen)


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    return Counter()


LENIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # an example takes seconds: no shrinking


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=PHASES,
    suppress_health_check=LENIENT,
)
@given(config=geometries().filter(loads_in_transformers), plan=traffic())
def test_any_geometry_under_any_schedule(
    seen: Counter[str], config: ModelConfig, plan: Traffic
) -> None:
    check(config, plan, seen)


def test_the_walks_have_met_everything(
    seen: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        sys.stdout.write("\n" + ", ".join(f"{n} {what}" for what, n in sorted(seen.items())) + " ")
    for event in (
        "preemptions",
        "prefix-cache hits",
        "decoded rows",
        "failed drafts",
        "rows that rebuild a state",
    ):
        assert seen[event], event


@pytest.mark.storm
@pytest.mark.timeout(3_600)
@settings(
    max_examples=400,
    deadline=None,
    phases=PHASES,
    suppress_health_check=LENIENT,
    print_blob=True,
)
@given(config=geometries().filter(loads_in_transformers), plan=traffic())
def test_many_geometries(seen: Counter[str], config: ModelConfig, plan: Traffic) -> None:
    check(config, plan, seen)
