"""Replica: one engine or one lease of GPUs; the unit of draining, billing and health. Internal."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from controlplane.crd.base import REPLICAS, Model, Rule, StatusModel, Stored
from controlplane.crd.conditions import Condition
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpointSpec, ScrubProof
from controlplane.crd.engine import EngineSpec, Isolation, WeightsSpec


class Phase(StrEnum):
    """Where a replica is in its life; in this order, but for Degraded, Failed and Quarantined.

    A bare lease passes the same phases: Fetching is sanitizing, Loading is booting, Probing waits
    for SSH, Stopping deletes the pod, Scrubbing proves the GPUs clean.
    """

    PENDING = "Pending"  # waits for GPUs
    RESERVED = "Reserved"  # its GPUs are set aside, its pods are being made
    SCHEDULED = "Scheduled"  # its pods have nodes
    FETCHING = "Fetching"  # weights come to the node
    LOADING = "Loading"  # the engine loads them
    PROBING = "Probing"  # it must complete one generation
    SERVING = "Serving"
    DEGRADED = "Degraded"  # was serving, does not answer now; not routed to
    DRAINING = "Draining"  # not routed to; requests in flight finish
    STOPPING = "Stopping"  # its pods are being deleted
    SCRUBBING = "Scrubbing"  # bare: its GPUs are proven clean
    RELEASED = "Released"  # its GPUs are free
    FAILED = "Failed"  # given up; its GPUs are free
    QUARANTINED = "Quarantined"  # its GPUs could not be proven clean and stay reserved


class ReplicaSpec(Model):
    """What it is, for ever, and what is asked of it now: weight and drain."""

    owner_kind: Literal["InferenceDeployment", "GPUEndpoint"] = Field(
        description="Its owner's kind."
    )
    owner: str = Field(description="Its owner's name, in the same namespace.")
    path: Literal["serverless", "dedicated", "bare"]
    tenant: str = ""
    model: str = Field("", description="The name customers ask for; empty on bare.")
    revision: str = Field(description="Hash of the owner's template it was made from.")
    slot: int = Field(0, ge=0, description="Its number among its owner's, part of its name.")
    configuration: GPUConfiguration = Field(description="What it gets, as the catalogue said then.")
    spot: bool = False
    engine: EngineSpec | None = None
    weights: WeightsSpec | None = None
    bare: GPUEndpointSpec | None = None
    isolation: Isolation = Field(default_factory=Isolation)
    drain_timeout_seconds: float = Field(600, ge=0)
    weight: int = Field(100, ge=0, le=100, description="Share of new requests.")
    drain: str = Field("", description="Why it is to end; empty: it is not.")

    rules = (
        Rule(
            "oldSelf.configuration == self.configuration && oldSelf.revision == self.revision",
            "a replica is what it is: only weight, drain and drainTimeoutSeconds change",
        ),
        Rule(
            "!has(oldSelf.drain) || oldSelf.drain == '' || (has(self.drain) && self.drain != '')",
            "a drain is not taken back",
        ),
    )


class Placement(StatusModel):
    """GPUs set aside on a node."""

    node: str
    gpus: int


class Failure(StatusModel):
    """Why it was given up."""

    reason: str
    message: str = ""
    retryable: bool = True
    at: str


class Stage(StatusModel):
    """How long a phase took: what the cold-start ladder is measured by."""

    phase: str
    seconds: float


class ReplicaStatus(StatusModel):
    """What is true. No heartbeat is written here: a replica at rest writes nothing."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    phase_since: str | None = None
    conditions: list[Condition] = Field(default=[])
    placements: list[Placement] = Field(default=[], description="The reservation.")
    reserved_until: str | None = Field(None, description="Given back if its pods do not start.")
    attempts: int = Field(0, description="Starts of the engine so far.")
    url: str = Field("", description="Where its engine answers.")
    max_model_len: int = Field(0, description="Longest context its engine serves.")
    serving_since: str | None = Field(None, description="Set once: after one completed generation.")
    engine_started_at: str | None = Field(
        None, description="Start of the process that was proven, by its node's clock."
    )
    drain_deadline: str | None = None
    drained_by: str = Field(
        "", description="Why it could stop: acknowledged, deadline, gone, unserved."
    )
    xid: int | None = Field(None, description="The last GPU error reported.")
    scrub: ScrubProof | None = None
    stages: list[Stage] = Field(default=[])
    failure: Failure | None = None


class Replica(Stored[ReplicaSpec, ReplicaStatus]):
    """A Replica as the API server holds it."""

    resource = REPLICAS
