import pytest

from controlplane.operator.capacity.quantities import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("500m", 0.5), ("32Gi", 32 * 2**30), ("1k", 1000), ("1e3", 1000), (4, 4), ("0", 0)],
)
def test_quantities_are_read(text: str | int, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "4Q"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|convert"):
        quantity(text)
