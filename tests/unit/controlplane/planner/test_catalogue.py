"""The shipped catalogue is sound, and a wrong one is refused entry by entry."""

import pytest

from controlplane.crd.engine import EngineSpec
from controlplane.planner.catalogue import InvalidCatalogue, default_text, parse
from controlplane.planner.launch import plan_launch

GOOD = "{id: a, gpu: H200, memoryGib: 140.4, count: 2}"


def test_the_shipped_catalogue_names_its_entries_and_orders_them_by_price() -> None:
    catalogue = parse(default_text())
    assert len(catalogue) >= 12
    prices = [it.hourly_usd for it in catalogue.values()]
    assert all(prices)
    assert prices == sorted(prices)


def test_every_engine_starts_on_something_that_is_shipped() -> None:
    where = parse(default_text())["h200-x8"]
    for name in ("flash", "vllm", "sglang"):
        assert plan_launch(EngineSpec(name=name), where).max_model_len > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("configurations: [", "not YAML"),
        ("", "no list"),
        ("- 1", "no list"),
        ("configurations: {}", "no list"),
        ("configurations: [3]", "entry 1: "),
        ("configurations: [{id: a, gpu: H200}]", "a: memoryGib: Field required"),
        (f"configurations: [{GOOD}, {GOOD}]", "there are two"),
        ("configurations: [{id: b, gpu: H200, memoryGib: 1, vram: 2}]", "b: vram: Extra"),
        ("configurations: [{id: b, gpu: X, memoryGib: 1, count: 3, nodes: 2}]", "evenly"),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_entry(text: str, complaint: str) -> None:
    with pytest.raises(InvalidCatalogue, match=complaint):
        parse(text)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidCatalogue) as caught:
        parse("configurations: [{id: a}, {id: b, gpu: H200, memoryGib: -1}]")
    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == {"a", "b"}


def test_yaml_tags_make_nothing() -> None:
    with pytest.raises(InvalidCatalogue, match="not YAML"):
        parse("configurations: !!python/object/apply:os.getcwd []")
