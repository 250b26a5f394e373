from hypothesis import given
from hypothesis import strategies as st

from worker.cache.prefix import PrefixIndex, page_key, root_key

TOKENS = st.lists(st.integers(0, 129279), min_size=1, max_size=8)


def test_salts_and_models_do_not_share_roots() -> None:
    roots = {root_key(model, salt) for model in ("a", "ab") for salt in (b"", b"b", b"ab")}
    assert len(roots) == 6


def test_model_and_salt_are_not_confused_by_concatenation() -> None:
    assert root_key("a", b"bc") != root_key("ab", b"c")


@given(TOKENS, TOKENS)
def test_keys_are_equal_exactly_for_equal_tokens(left: list[int], right: list[int]) -> None:
    root = root_key("m", b"")
    assert (page_key(root, left) == page_key(root, right)) == (left == right)


def test_key_depends_on_all_that_came_before() -> None:
    a, b = page_key(root_key("m", b""), [1]), page_key(root_key("m", b""), [2])
    assert page_key(a, [3]) != page_key(b, [3])


def test_the_first_page_of_a_content_wins() -> None:
    index = PrefixIndex()
    assert index.add(b"k", 1)
    assert not index.add(b"k", 2)
    assert index.pages == [1]


def test_removing_a_page_gives_back_its_snapshot() -> None:
    index = PrefixIndex()
    index.add(b"k", 1)
    assert index.add_snapshot(b"k", 7)
    assert not index.add_snapshot(b"k", 8)
    assert index.remove_page(1) == 7
    assert index.snapshots == []
    assert not index.add_snapshot(b"k", 8)
