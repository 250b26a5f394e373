"""The backend as a whole: the seam's operations, as the reference has them, and its refusals."""

import inspect
from dataclasses import replace

import pytest

from worker.errors import ConfigError
from worker.kernels import reference
from worker.kernels import triton as backend
from worker.kernels.load import KernelBackend, load_backend
from worker.model.tiny import TINY

OPERATIONS = sorted(name for name in vars(KernelBackend) if not name.startswith("_"))


def test_it_has_the_operations_of_the_seam_and_no_other() -> None:
    assert sorted(backend.__all__) == OPERATIONS == sorted(reference.__all__)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_called_like_the_reference(name: str) -> None:
    ours = inspect.signature(getattr(backend, name))
    assert ours == inspect.signature(getattr(reference, name))


def test_under_the_interpreter_any_device_will_do(device: str) -> None:
    assert load_backend("triton", TINY, device) is backend


def test_a_geometry_that_a_kernel_cannot_take_is_refused_by_the_operations_name() -> None:
    with pytest.raises(ConfigError, match=r"hyper_connection_in: hc_mult.*--kernels reference"):
        load_backend("triton", replace(TINY, hc_mult=3), "cpu")
