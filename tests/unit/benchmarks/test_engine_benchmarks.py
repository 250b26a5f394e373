"""Every benchmark of the engine in its smallest form: they must run, not reach their aims."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.engine import memory, prefix, scheduling, step_time, throughput
from benchmarks.engine.results import Row, as_markdown, write_json
from benchmarks.engine.step_time import RecordedProducts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def test_step_time(models: Path) -> None:
    rows = list(step_time.measure("tiny", models, rounds=1))
    assert len(rows) == 4
    products = [int(row.against.split(", ")[1].split()[0]) for row in rows]
    assert 100 < products[0] <= products[1] <= products[2]  # experts are hit one by one


def test_throughput_gives_the_same_tokens(models: Path) -> None:
    for row in throughput.measure("tiny", models, rounds=1, requests=(1, 3)):
        assert "100.0% same tokens" in row.case
        assert row.ratio > 0


def test_prefix_hit(models: Path) -> None:
    [row] = prefix.measure("tiny", models, rounds=1, known_pages=4)
    assert row.case == "1,024 of 1,078 tokens known"


def test_scheduling() -> None:
    [row] = scheduling.measure(rounds=2, running=4)
    assert row.case == "4 running"


def test_steady_memory(models: Path) -> None:
    [row] = memory.measure("tiny", models, requests=40, sampled_every=8)
    assert "resident" in row.against


def test_only_the_models_own_products_are_recorded() -> None:
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    with torch.inference_mode(), RecordedProducts() as products:
        torch.nn.functional.linear(x, weight)
        torch.einsum("tgi,goi->tgo", torch.ones(2, 2, 3), torch.ones(2, 4, 3))
        torch.addmm(torch.zeros(2, 4), x, weight.t(), out=torch.empty(2, 4))  # Sinkhorn's way
    assert [func.name() for func, _ in products.calls] == ["aten::mm", "aten::bmm"]


def test_aims_bind_in_their_direction(tmp_path: Path) -> None:
    def row(ratio: float, *, at_most: bool) -> Row:
        return Row("name", "tiny", "case", "1", "2", ratio, (ratio, ratio), 1.0, at_most)

    rows = [row(0.9, at_most=True), row(0.9, at_most=False)]
    write_json(tmp_path / "rows.json", rows)
    stored = json.loads((tmp_path / "rows.json").read_text())
    assert [r["met"] for r in stored["rows"]] == [True, False]
    assert [line.rsplit("|", 2)[1].strip() for line in as_markdown(rows).splitlines()[2:]] == [
        "yes",
        "**no**",
    ]
