"""Metrics of several ranks as those of one engine."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from worker.metrics import EngineMetrics


def values(metrics: EngineMetrics) -> dict[str, float]:
    """Every sample that is not zero, by name and labels but the model's."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        "|".join([s.name, *(v for n, v in sorted(s.labels.items()) if n != "model_name")]): s.value
        for family in families
        for s in family.samples
        if s.value and not s.name.endswith("_created")
    }


def rank(steps: int, usage: float, waits: list[float]) -> EngineMetrics:
    metrics = EngineMetrics("")
    metrics.steps.inc(steps)
    metrics.page_usage.set(usage)
    for seconds in waits:
        metrics.first_token_seconds.observe(seconds)
    return metrics


def test_ranks_add_up() -> None:
    server = EngineMetrics("model")
    server.generation_tokens.inc(7)
    server.finished("stop")
    server.absorb(0, rank(3, 0.5, [0.1]).samples())
    server.absorb(1, rank(4, 0.25, [0.1, 90.0]).samples())
    found = values(server)
    assert found["vllm:engine_steps_total"] == 7
    assert found["vllm:generation_tokens_total"] == 7
    assert found["vllm:request_success_total|stop"] == 1
    assert found["vllm:time_to_first_token_seconds_count"] == 3
    assert found["vllm:time_to_first_token_seconds_bucket|0.15"] == 2
    assert found["vllm:time_to_first_token_seconds_sum"] == pytest.approx(90.2)


def test_what_only_ranks_have_counted_is_shown() -> None:
    server, there = EngineMetrics("model"), EngineMetrics("")
    there.finished("abort")
    server.absorb(1, there.samples())
    assert values(server)["vllm:request_success_total|abort"] == 1


def test_a_fraction_is_the_mean_over_ranks() -> None:
    server = EngineMetrics("model")
    server.absorb(0, rank(0, 0.5, []).samples())
    server.absorb(1, rank(0, 0.25, []).samples())
    assert values(server)["vllm:kv_cache_usage_perc"] == 0.375


def test_the_latest_samples_of_a_rank_replace_its_earlier_ones() -> None:
    server = EngineMetrics("model")
    server.absorb(0, rank(3, 0.0, []).samples())
    server.absorb(0, rank(5, 0.0, []).samples())
    assert values(server)["vllm:engine_steps_total"] == 5


def test_every_sample_bears_the_servers_model_name() -> None:
    server = EngineMetrics("model")
    server.absorb(0, rank(3, 0.5, [0.1]).samples())
    families = text_string_to_metric_families(server.text().decode())
    assert {s.labels["model_name"] for f in families for s in f.samples} == {"model"}
