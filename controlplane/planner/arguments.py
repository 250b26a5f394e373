"""Command-line arguments of each engine for a `Launch`: the model's part, without host and paths.

vLLM's and SGLang's are those of their published recipes for V4-Flash.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from controlplane.crd.engine import EngineName
from controlplane.planner.launch import Launch


def flash_arguments(launch: Launch) -> list[str]:
    """Arguments of `flashplane-worker serve`."""
    options: dict[str, object] = {
        "--device": launch.device,
        "--dtype": "float32" if launch.device == "cpu" else "bfloat16",
        "--max-model-len": launch.max_model_len,
        "--max-sequences": launch.max_running_per_copy,
        "--kv-cache-dtype": launch.kv_cache_dtype,
        "--ep-size": launch.gpus,
    }
    if launch.pages:
        options |= {"--pages": launch.pages, "--snapshots-kept": launch.snapshots}
    if launch.draft_tokens:
        options["--draft-tokens"] = launch.draft_tokens
    if launch.device == "cpu":
        options["--threads"] = 1  # several tiny engines share a machine
    return _flat(options)


def vllm_arguments(launch: Launch) -> list[str]:
    """Arguments of `vllm serve`."""
    expert = launch.parallelism == "expert"
    division = {
        "tensor": "--tensor-parallel-size",
        "pipeline": "--pipeline-parallel-size",
        "expert": "--data-parallel-size",
    }[launch.parallelism]
    options: dict[str, object] = {
        division: launch.gpus,
        "--kv-cache-dtype": launch.kv_cache_dtype,
        "--block-size": 256,
        "--max-model-len": launch.max_model_len,
        "--gpu-memory-utilization": f"{launch.utilization:.2f}",
        "--max-num-seqs": launch.max_running_per_copy,
        "--tokenizer-mode": "deepseek_v4",
        "--reasoning-parser": "deepseek_v4",
        "--tool-call-parser": "deepseek_v4",
    }
    if launch.draft_tokens:
        drafting = {"method": "mtp", "num_speculative_tokens": launch.draft_tokens}
        options["--speculative-config"] = json.dumps(drafting)
    flags = ["--enable-chunked-prefill", "--enable-auto-tool-choice"]
    if expert or launch.parallelism == "tensor":
        flags.append("--enable-expert-parallel")
    return _flat(options) + flags


def sglang_arguments(launch: Launch) -> list[str]:
    """Arguments of `python3 -m sglang.launch_server`."""
    division = {
        "tensor": ("--tp-size", "--ep-size"),
        "expert": ("--tp-size", "--ep-size", "--dp-size"),
        "pipeline": ("--pp-size",),
    }[launch.parallelism]
    options: dict[str, object] = {
        **dict.fromkeys(division, launch.gpus),
        "--context-length": launch.max_model_len,
        "--kv-cache-dtype": "fp8_e4m3" if launch.kv_cache_dtype == "fp8" else "auto",
        "--mem-fraction-static": f"{launch.utilization:.2f}",
        "--max-running-requests": launch.max_running,
        "--reasoning-parser": "deepseek-v4",
        "--tool-call-parser": "deepseekv4",
    }
    flags = ["--enable-metrics"]
    if launch.parallelism == "expert":
        flags += ["--enable-dp-attention", "--enable-metrics-for-all-schedulers"]
    if launch.draft_tokens:
        options |= {
            "--speculative-algorithm": "EAGLE",
            "--speculative-num-steps": launch.draft_tokens,
            "--speculative-eagle-topk": 1,
            "--speculative-num-draft-tokens": launch.draft_tokens + 1,
        }
    return _flat(options) + flags


ARGUMENTS: Mapping[EngineName, Callable[[Launch], list[str]]] = MappingProxyType(
    {"flash": flash_arguments, "vllm": vllm_arguments, "sglang": sglang_arguments}
)


def _flat(options: Mapping[str, object]) -> list[str]:
    return [part for name, value in options.items() for part in (name, str(value))]
