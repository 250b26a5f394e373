"""What engines are started with, and what is refused with which reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.configurations import configuration

from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import EngineSpec
from controlplane.planner.arguments import ARGUMENTS
from controlplane.planner.launch import SHORTEST_CONTEXT, Launch, plan_launch
from controlplane.planner.memory import CacheSize
from controlplane.planner.refusal import DoesNotFit, Refused


def refusal(engine: EngineSpec, **where: object) -> Refused:
    with pytest.raises(Refused) as caught:
        plan_launch(engine, configuration(**where))
    return caught.value


def planned(engine: EngineSpec, where: GPUConfiguration) -> Launch | Refused:
    try:
        return plan_launch(engine, where)
    except Refused as refused:
        return refused


def test_flash_divides_experts_and_every_rank_has_its_own_cache() -> None:
    launch = plan_launch(EngineSpec(), configuration("H200", 8))
    assert (launch.parallelism, launch.copies) == ("expert", 8)
    assert launch.max_model_len == 1_048_576
    assert launch.pages * 256 > 4 * launch.max_model_len
    assert launch.snapshots == launch.pages // 64


def test_ep_size_that_does_not_divide_the_experts_is_impossible() -> None:
    refused = refusal(EngineSpec(), gpu="H200", count=6)
    assert refused.reason is Reason.IMPOSSIBLE_GEOMETRY
    assert "6 does not divide 256 experts" in refused.message


def test_tensor_parallelism_must_divide_heads_and_output_groups() -> None:
    refused = refusal(EngineSpec(name="vllm"), gpu="H200", count=3)
    assert "3 does not divide 64 heads" in refused.message


def test_an_asked_for_parallelism_that_the_engine_lacks_is_named() -> None:
    refused = refusal(EngineSpec(name="flash", parallelism="tensor"), gpu="H200")
    assert "flash has no tensor parallelism, only: expert" in refused.message


def test_the_configurations_preference_gives_way_to_what_the_engine_can() -> None:
    where = configuration("H200", 8, parallelism="pipeline")
    assert plan_launch(EngineSpec(name="flash"), where).parallelism == "expert"
    assert plan_launch(EngineSpec(name="vllm"), where).parallelism == "pipeline"


@pytest.mark.parametrize(
    ("engine", "where", "missing"),
    [
        ("vllm", {"gpu": "A100-80GB"}, "FP8"),
        ("flash", {"gpu": "A100-80GB"}, "Hopper and newer"),
        ("sglang", {"gpu": "cpu", "count": 1}, "no V4 for CPUs"),
        ("flash", {"gpu": "H200", "count": 16, "nodes": 2}, "runs on one node"),
    ],
)
def test_missing_support_is_named(engine: str, where: dict, missing: str) -> None:
    refused = refusal(EngineSpec(name=engine), **where)
    assert refused.reason is Reason.IMPOSSIBLE_GEOMETRY
    assert missing in refused.message


def test_a_consumer_gpu_is_not_taken_for_a_datacentres() -> None:
    rtx = configuration("RTX-5090", 8)
    assert plan_launch(EngineSpec(name="vllm"), rtx).max_model_len < 1_048_576
    with pytest.raises(Refused, match="not tried"):
        plan_launch(EngineSpec(name="flash"), rtx)


def test_weights_beyond_the_memory_do_not_fit() -> None:
    refused = refusal(EngineSpec(name="vllm"), gpu="H200", count=1)
    assert refused.reason is Reason.DOES_NOT_FIT
    assert isinstance(refused, DoesNotFit)
    assert refused.missing_gib == pytest.approx(22.0, abs=5)


def test_a_context_beyond_the_cache_does_not_fit() -> None:
    small = EngineSpec(name="sglang", max_model_len=131_072)
    assert plan_launch(small, configuration("H100-NVL", 2)).max_model_len == 131_072
    refused = refusal(EngineSpec(name="vllm", max_model_len=1_048_576), gpu="RTX-5090", count=8)
    assert refused.reason is Reason.DOES_NOT_FIT
    assert "1048576 tokens" in refused.message


def test_what_is_asked_for_is_given() -> None:
    spec = EngineSpec(name="vllm", max_model_len=65_536, max_running=40, draft_tokens=1)
    launch = plan_launch(spec, configuration("H200", 8, parallelism="expert"))
    assert launch.max_model_len == 65_536
    assert (launch.max_running, launch.max_running_per_copy) == (40, 5)
    assert launch.target_inflight == 40


def test_measured_cache_sizes_replace_theory() -> None:
    where = configuration("H200", 8)
    derived = plan_launch(EngineSpec(max_model_len=1_048_576), where)
    twice = CacheSize(2 * 3850.25, 2 * 15_420_416, 2 * 3_644_416, derived=False)
    measured = plan_launch(EngineSpec(max_model_len=1_048_576), where, measured=twice)
    assert measured.sequences == pytest.approx(derived.sequences / 2)


def test_the_tiny_model_starts_on_a_cpu() -> None:
    launch = plan_launch(EngineSpec(), configuration("cpu", 1))
    assert (launch.device, launch.max_model_len, launch.pages) == ("cpu", 32_768, 0)
    assert launch.weights_bytes < 10**8


@given(
    name=st.sampled_from(["flash", "vllm", "sglang"]),
    parallelism=st.sampled_from(["", "tensor", "pipeline", "expert"]),
    count=st.integers(1, 32),
    memory_gib=st.floats(20, 300),
    max_model_len=st.none() | st.integers(1, 1_048_576),
    kv=st.sampled_from(["auto", "fp8"]),
    draft_tokens=st.integers(0, 3),
)
def test_what_is_planned_fits_and_what_is_not_is_refused_in_words(
    name: str,
    parallelism: str,
    count: int,
    memory_gib: float,
    max_model_len: int | None,
    kv: str,
    draft_tokens: int,
) -> None:
    engine = EngineSpec(
        name=name,
        parallelism=parallelism,
        max_model_len=max_model_len,
        kv_cache_dtype=kv,
        draft_tokens=draft_tokens,
    )
    launch = planned(engine, configuration("H200", count, memory_gib=memory_gib))
    if isinstance(launch, Refused):
        assert launch.reason in (Reason.IMPOSSIBLE_GEOMETRY, Reason.DOES_NOT_FIT)
        assert launch.message
        return
    assert launch.sequences >= launch.copies * 0.999
    assert launch.max_model_len == (max_model_len or launch.max_model_len) >= 1
    assert launch.max_model_len >= SHORTEST_CONTEXT or max_model_len is not None
    assert 1 <= launch.target_inflight <= launch.max_running
    assert all(isinstance(it, str) and it for it in ARGUMENTS[launch.engine](launch))


def after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_vllm_arguments_are_its_recipes() -> None:
    engine = EngineSpec(name="vllm", max_model_len=131_072, max_running=32, draft_tokens=1)
    arguments = ARGUMENTS["vllm"](plan_launch(engine, configuration("H200", 8)))
    assert after(arguments, "--tensor-parallel-size") == "8"
    assert after(arguments, "--max-model-len") == "131072"
    assert after(arguments, "--gpu-memory-utilization") == "0.90"
    assert after(arguments, "--max-num-seqs") == "32"
    assert after(arguments, "--tokenizer-mode") == "deepseek_v4"
    assert after(arguments, "--kv-cache-dtype") == "fp8"
    assert '"num_speculative_tokens": 1' in after(arguments, "--speculative-config")
    assert {"--enable-expert-parallel", "--enable-chunked-prefill"} <= set(arguments)


def test_vllm_runs_attention_on_each_gpu_under_expert_parallelism() -> None:
    engine = EngineSpec(name="vllm", parallelism="expert", max_running=64)
    arguments = ARGUMENTS["vllm"](plan_launch(engine, configuration("H200", 8)))
    assert after(arguments, "--data-parallel-size") == "8"
    assert after(arguments, "--max-num-seqs") == "8"  # of each rank
    assert "--tensor-parallel-size" not in arguments


def test_a_vllm_pipeline_has_no_expert_parallelism() -> None:
    engine = EngineSpec(name="vllm", parallelism="pipeline")
    arguments = ARGUMENTS["vllm"](plan_launch(engine, configuration("H200", 3)))
    assert after(arguments, "--pipeline-parallel-size") == "3"
    assert "--enable-expert-parallel" not in arguments


def test_sglang_arguments_are_its_recipes() -> None:
    engine = EngineSpec(name="sglang", parallelism="expert", draft_tokens=2)
    arguments = ARGUMENTS["sglang"](plan_launch(engine, configuration("H200", 8)))
    assert [after(arguments, it) for it in ("--tp-size", "--ep-size", "--dp-size")] == [
        "8",
        "8",
        "8",
    ]
    assert after(arguments, "--kv-cache-dtype") == "fp8_e4m3"
    assert after(arguments, "--speculative-num-draft-tokens") == "3"
    assert {"--enable-dp-attention", "--enable-metrics"} <= set(arguments)


def test_an_sglang_pipeline_is_nothing_else() -> None:
    engine = EngineSpec(name="sglang", parallelism="pipeline")
    arguments = ARGUMENTS["sglang"](plan_launch(engine, configuration("H200", 3)))
    assert after(arguments, "--pp-size") == "3"
    assert not {"--tp-size", "--ep-size", "--dp-size"} & set(arguments)
