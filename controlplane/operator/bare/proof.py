"""That GPUs are clean before and after a customer: what `nvidia-smi` says, judged; pure.

`flashplane scrub` gathers it inside a container that holds the GPUs and leaves it as that
container's termination message; the operator reads it back. Nothing is reused without such a proof.
"""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from controlplane.cluster import Object
from controlplane.crd.base import timestamp
from controlplane.crd.endpoint import ScrubProof

# What a driver keeps for itself on an idle GPU; ECC and display buffers are below it.
IDLE_MEMORY_MIB = 1024

QuickTest = Literal["passed", "failed", "absent"]


@dataclass(frozen=True)
class Report:
    """What was found on the GPUs of one container."""

    gpu_uuids: list[str]
    foreign_pids: int
    memory_used_mib: int
    quick_test: QuickTest
    message: str = ""

    def encode(self) -> str:
        """Return the termination message; Kubernetes keeps at most 4,096 bytes of it."""
        return json.dumps({**asdict(self), "message": self.message[:1000]})


def decode(message: str) -> Report | None:
    """Return the report of a termination message; None when it is none."""
    try:
        return Report(**json.loads(message))
    except (ValueError, TypeError):
        return None


def from_tables(gpus: str, processes: str, quick_test: QuickTest) -> Report:
    """Read what `nvidia-smi --query-... --format=csv,noheader,nounits` printed.

    Args:
        gpus: lines of `uuid, memory.used`, the memory in MiB.
        processes: lines of `pid`; a container sees those on its own GPUs.
        quick_test: what `dcgmi diag -r 1` said.
    """
    rows = [
        [cell.strip() for cell in line.split(",")] for line in gpus.splitlines() if line.strip()
    ]
    pids = [line for line in processes.splitlines() if line.strip().isdigit()]
    return Report(
        gpu_uuids=[row[0] for row in rows],
        foreign_pids=len(pids),
        memory_used_mib=max((int(row[1]) for row in rows), default=0),
        quick_test=quick_test,
        message="" if rows else "nvidia-smi lists no GPU",
    )


def judge(report: Report | None, *, gpus: int, now: float) -> ScrubProof:
    """Return the proof that a report is, good or bad; no report is a bad one.

    Args:
        gpus: how many GPUs the container had.
    """
    if report is None:
        return ScrubProof(at=timestamp(now), ok=False, message="the check left no report")
    faults = []
    if len(report.gpu_uuids) != gpus:
        faults.append(f"{len(report.gpu_uuids)} GPUs seen, {gpus} had")
    if report.foreign_pids:
        faults.append(f"{report.foreign_pids} processes left on the GPUs")
    if report.memory_used_mib > IDLE_MEMORY_MIB:
        faults.append(f"{report.memory_used_mib} MiB of GPU memory still used")
    if report.quick_test == "failed":
        faults.append("the DCGM quick test failed")
    if report.message:
        faults.append(report.message)
    return ScrubProof(
        at=timestamp(now),
        ok=not faults,
        foreign_pids=report.foreign_pids,
        memory_used_mib=report.memory_used_mib,
        quick_test=report.quick_test,
        message="; ".join(faults),
    )


def report_of(pod: Object, container: str) -> Report | None:
    """Return the report that a container of `pod` left; None while it runs, or without one."""
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for it in status.get(kind, ()):
            if it["name"] == container and "terminated" in it.get("state", {}):
                return decode(it["state"]["terminated"].get("message", ""))
    return None
