"""Engines as the operator starts, proves and reads them."""

import pytest
import typer
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from support.configurations import configuration

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import EngineSpec
from controlplane.operator.engines.metrics import EngineMetrics
from controlplane.operator.engines.openai import parse_models
from controlplane.operator.engines.place import Place
from controlplane.operator.engines.profile import ENGINES
from controlplane.planner.launch import plan_launch
from worker.cli import app
from worker.metrics import EngineMetrics as WorkerMetrics

PLACE = Place(model="m@chat", directory="/weights", port=8000, drain_seconds=600)


def command(engine: EngineSpec, where: GPUConfiguration, place: Place = PLACE) -> list[str]:
    return ENGINES[engine.name].command(plan_launch(engine, where), place)


@pytest.mark.parametrize(
    ("engine", "where"),
    [
        (EngineSpec(), configuration("cpu", 1)),
        (EngineSpec(draft_tokens=1), configuration("H200", 8)),
        (EngineSpec(kv_cache_dtype="auto", arguments=["--snapshots", "window"]), configuration()),
    ],
)
def test_our_engine_takes_every_argument(engine: EngineSpec, where: GPUConfiguration) -> None:
    program, verb, *arguments = command(engine, where)
    assert (program, verb) == ("flashplane-worker", "serve")
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    given = serve.make_context("serve", arguments).params
    assert given["served_model_name"] == "m@chat"
    assert given["port"] == 8000
    assert given["host"] == "$(POD_IP)"


def test_the_deployments_own_arguments_come_last() -> None:
    engine = EngineSpec(name="vllm", arguments=["--seed", "7"])
    assert command(engine, configuration())[-2:] == ["--seed", "7"]


def test_sglang_is_told_the_token_and_others_read_it_from_their_environment() -> None:
    place = Place("m", "/weights", 8000, 60, token="SOME_TOKEN")
    sglang = command(EngineSpec(name="sglang"), configuration(), place)
    assert sglang[sglang.index("--api-key") + 1] == "$(SOME_TOKEN)"
    assert not any("SOME_TOKEN" in it for it in command(EngineSpec(), configuration(), place))
    assert "--api-key" not in command(EngineSpec(name="sglang"), configuration())


def test_the_proof_is_one_greedy_token() -> None:
    for profile in ENGINES.values():
        path, body = profile.completion_request("m@chat")
        assert path == "/v1/completions"
        assert body["model"] == "m@chat"
        assert body["max_tokens"] == 1


def test_our_engines_metrics_are_read() -> None:
    metrics = WorkerMetrics("m")
    metrics.running.set(3)
    metrics.waiting.set(2)
    metrics.page_usage.set(0.25)
    text = metrics.text().decode()
    assert ENGINES["flash"].parse_metrics(text) == EngineMetrics(3, 2, 0.25)


def test_vllms_ranks_add_up_and_their_cache_is_averaged() -> None:
    registry = CollectorRegistry()
    labels = ["engine", "model_name"]
    for name, values in (
        ("vllm:num_requests_running", (4, 1)),
        ("vllm:num_requests_waiting", (0, 2)),
        ("vllm:kv_cache_usage_perc", (0.5, 0.1)),
    ):
        gauge = Gauge(name, name, labels, registry=registry)
        for rank, value in enumerate(values):
            gauge.labels(str(rank), 'a "quoted" } name').set(value)
    read = ENGINES["vllm"].parse_metrics(generate_latest(registry).decode())
    assert (read.running, read.waiting) == (5, 2)
    assert read.kv_usage == pytest.approx(0.3)


SGLANG = """\
# HELP sglang:token_usage The token usage
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m",tp_rank="0"} 0.28
sglang:num_running_reqs{model_name="m",tp_rank="0"} 6.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 0.0
sglang:num_running_reqs_offline_batch{model_name="m"} 9.0
"""


def test_sglangs_documented_metrics_are_read() -> None:
    assert ENGINES["sglang"].parse_metrics(SGLANG) == EngineMetrics(6, 0, 0.28)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("text", ["", "<html>", "vllm:num_requests_running{} NaN\n", "a b c\n"])
def test_what_is_not_told_is_unknown_and_not_zero(engine: str, text: str) -> None:
    assert ENGINES[engine].parse_metrics(text) == EngineMetrics(None, None, None)


def test_models_are_read_with_their_context() -> None:
    answer = {"data": [{"id": "m", "max_model_len": 4096}, {"id": "n"}, 7]}
    assert parse_models(answer) == [("m", 4096), ("n", None)]
