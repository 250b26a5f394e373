"""Alerts and dashboards speak of metrics that exist, in PromQL that parses."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from worker.metrics import EngineMetrics

ROOT = Path(__file__).resolve().parents[3]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
# Whoever defines metrics of the control plane.
DEFINING = (
    "controlplane.metrics",
    "controlplane.gateway.telemetry",
    "controlplane.operator.runtime.metrics",
    "controlplane.watching.metrics",
)
METRIC = re.compile(r"\b(flashplane_\w+|vllm:\w+)")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def alert_queries() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def panel_queries() -> Iterator[tuple[str, str]]:
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]


QUERIES = [*alert_queries(), *panel_queries()]


def names(collector: Collector) -> Iterator[str]:
    for family in collector.collect():
        for suffix in SUFFIXES.get(family.type, ("",)):
            yield family.name + suffix


@pytest.fixture(scope="module")
def known() -> set[str]:
    for module in DEFINING:
        importlib.import_module(module)
    return {*names(REGISTRY), *names(EngineMetrics("flash"))}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_metric_exists(where: str, query: str, known: set[str]) -> None:
    used = set(METRIC.findall(query))
    assert used
    assert used <= known


def test_every_query_parses() -> None:
    parser = pytest.importorskip("promql_parser")
    for _, query in QUERIES:
        parser.parse(query.replace("$__rate_interval", "5m"))


def test_alerts_say_what_is_wrong_and_how_bad() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
            assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_dashboards_have_unique_ids_and_choose_their_source() -> None:
    boards = [json.loads(file.read_text()) for file in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards)
    for board in boards:
        assert [it["name"] for it in board["templating"]["list"]] == ["datasource"]
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == "${datasource}"
