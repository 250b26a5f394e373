"""Which backend is handed out, and what is told where none can be."""

import logging
import os
import subprocess
import sys

import pytest

from worker.errors import ConfigError
from worker.kernels import reference
from worker.kernels.load import load_backend
from worker.model.tiny import TINY


def test_an_unknown_backend_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="known: auto, reference, triton"):
        load_backend("cuda", TINY, "cpu")


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_a_cpu_is_served_by_the_reference_and_told_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "worker.kernels.load"):
        assert load_backend(name, TINY, "cpu") is reference
    assert caplog.messages == ["kernels: reference"]


def test_without_triton_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match=r"needs the package triton.*--kernels reference"):
        load_backend("triton", TINY, "cpu")


def test_a_cpu_is_refused_by_triton_before_any_weight_is_read() -> None:
    asked = "from worker.kernels.load import load_backend; from worker.model.tiny import TINY; "
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", asked + "load_backend('triton', TINY, 'cpu')"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr.strip().splitlines()[-1] == (
        "worker.errors.ConfigError: kernel backend 'triton': it needs a CUDA device, not 'cpu'; "
        "use --kernels reference"
    )
