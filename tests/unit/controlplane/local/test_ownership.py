"""Server-side apply as arithmetic of leaves."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.cluster import CONFIG_MAPS, Object
from controlplane.local.objects import LocalCluster
from controlplane.local.ownership import changed, merged, paths_of, without

WORDS = st.sampled_from("abc")
LEAVES = st.one_of(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2))
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(WORDS, inner, min_size=1, max_size=3), max_leaves=6
)
BODIES = st.dictionaries(st.sampled_from(["spec", "data"]), TREES, max_size=2)


@given(BODIES, BODIES)
def test_what_is_merged_in_is_there(live: Object, applied: Object) -> None:
    assert not changed(merged(live, applied), applied)


@given(BODIES)
def test_without_its_leaves_nothing_is_left(body: Object) -> None:
    assert without(body, paths_of(body)) == {}


@given(BODIES, BODIES)
def test_only_what_is_named_goes(kept: Object, body: Object) -> None:
    gone = paths_of(body) - paths_of(kept)
    both = merged(body, kept)
    if paths_of(kept) <= paths_of(both):  # none of it stands where the other has a branch
        assert not changed(without(both, gone), kept)


def test_elements_of_keyed_lists_are_owned_one_by_one() -> None:
    def container(name: str, image: str) -> dict[str, Any]:
        return {"name": name, "image": image}

    one = {"spec": {"containers": [container("a", "1")]}}
    both = merged(one, {"spec": {"containers": [container("b", "2")]}})
    assert both["spec"]["containers"] == [container("a", "1"), container("b", "2")]
    assert without(both, paths_of(one))["spec"]["containers"] == [container("b", "2")]


@given(st.lists(st.tuples(WORDS, st.dictionaries(WORDS, st.sampled_from("xy"))), max_size=8))
def test_the_last_apply_of_each_manager_is_what_there_is(
    applies: list[tuple[str, dict[str, str]]],
) -> None:
    """Whoever applied a key last decides its value; it is there while an owner still applies it."""
    cluster = LocalCluster()
    owners: dict[str, set[str]] = {}
    values: dict[str, str] = {}
    for manager, data in applies:
        body = {"metadata": {"namespace": "default", "name": "it"}, "data": data}
        after = cluster.apply(CONFIG_MAPS, body, manager=manager)
        for key, value in data.items():
            if values.get(key) != value:
                owners[key] = set()
            values[key] = value
            owners[key].add(manager)
        for key in [key for key in owners if key not in data]:
            was_its = manager in owners[key]
            owners[key].discard(manager)
            if was_its and not owners[key]:
                del owners[key], values[key]
        assert after.get("data", {}) == values
