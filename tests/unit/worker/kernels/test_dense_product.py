import pytest
import torch

from worker.kernels.dense import product


@pytest.mark.parametrize("rows", [(0,), (1,), (7,), (8,), (33,), (63,), (64,), (3, 4), (2, 0)])
def test_any_number_of_rows_is_multiplied_alike(rows: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*rows, 24, generator=generator)
    weight = torch.randn(10, 24, generator=generator)
    result = product(x, weight)
    assert result.is_contiguous()
    torch.testing.assert_close(result, (x.double() @ weight.double().T).float())
