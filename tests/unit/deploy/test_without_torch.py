"""What `make lock` takes out of lock files."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
without_torch = runpy.run_path(str(ROOT / "deploy/without_torch.py"))["without_torch"]


def block(name: str, *asked_by: str) -> str:
    reasons = "".join(f"    #   {by}\n" for by in asked_by)
    return f"{name}==1.0 \\\n    --hash=sha256:0\n    # via\n{reasons}"


def test_torch_and_what_only_it_needs_are_taken_out() -> None:
    kept = block("numpy", "torch")
    torchs = block("nvidia-nccl", "torch") + block("triton", "torch")
    assert without_torch(block("torch", "flashplane (pyproject.toml)") + torchs + kept) == kept


def test_triton_stays_where_the_project_asks_for_it() -> None:
    asked = block("triton", "flashplane (pyproject.toml)", "torch")
    assert without_torch(asked) == asked
