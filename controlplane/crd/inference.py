"""InferenceDeployment: a serverless pool, or a tenant's dedicated replicas."""

from typing import Literal

from pydantic import Field, model_validator

from controlplane.crd.base import DEPLOYMENTS, Model, Rule, StatusModel, Stored
from controlplane.crd.conditions import Condition
from controlplane.crd.engine import EngineSpec, Isolation, WeightsSpec

TIME = r"^([01]\d|2[0-3]):[0-5]\d$"
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(Model):
    """A time of the week; one that ends before it starts ends on the next day."""

    days: list[Day] = Field(
        default_factory=lambda: list(DAYS), min_length=1, description="Days on which it starts."
    )
    start: str = Field("00:00", pattern=TIME, description="From, HH:MM.")
    end: str = Field("00:00", pattern=TIME, description="To, HH:MM; the same as start: 24 hours.")
    timezone: str = Field("UTC", description="IANA name, such as Europe/Berlin.")


class ScheduledMinimum(Window):
    """A minimum that holds for a time of the week."""

    min: int = Field(ge=0, description="Replicas kept at least meanwhile.")


class Scaling(Model):
    """How the number of replicas follows the load: the most that any signal asks for."""

    min: int = Field(0, ge=0, le=1000, description="Replicas kept always; 0 allows none at all.")
    max: int = Field(1, ge=1, le=1000, description="Replicas at most.")
    warm: int = Field(0, ge=0, description="Replicas kept beyond what the load needs.")
    target_inflight: int | None = Field(
        None, ge=1, description="Requests one replica should have; unset: what its memory holds."
    )
    kv_limit: float = Field(0.8, gt=0, le=1, description="Cache occupancy that counts as full.")
    kv_spare: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Another replica when less of the cache is free below the limit.",
    )
    ttft_p95_ms: float | None = Field(None, gt=0, description="Target of the time to first token.")
    itl_p95_ms: float | None = Field(None, gt=0, description="Target of the time between tokens.")
    panic_seconds: float = Field(30, gt=0, description="Load is averaged over this to scale up.")
    stabilization_seconds: float = Field(
        900, ge=0, description="The most wanted in this time is kept before scaling down."
    )
    idle_seconds: float = Field(
        900,
        ge=0,
        description="Without any request for this long the last replica goes, if min is 0.",
    )
    schedules: list[ScheduledMinimum] = Field(
        default_factory=list, max_length=32, description="Minimums for times of the week."
    )

    rules = (Rule("self.min <= self.max", "min must not exceed max"),)

    @model_validator(mode="after")
    def _ordered(self) -> "Scaling":
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        return self


class Spot(Model):
    """Use of spot configurations."""

    on_demand_base: int = Field(0, ge=0, description="Replicas that are never on spot.")
    fallback: bool = Field(
        True, description="Take on-demand GPUs while there are no spot ones, or a notice has come."
    )


class CanaryStep(Model):
    """A share of traffic for a time."""

    weight: int = Field(ge=1, le=100, description="Percent of new requests the candidate gets.")
    seconds: float = Field(
        60, ge=0, description="For how long, with requests seen, until the next."
    )


class AbortOn(Model):
    """When a candidate is given up. Compared with the current revision over the same time."""

    error_ratio: float = Field(
        0.05, ge=0, le=1, description="Share of its requests that failed, beyond the current one's."
    )
    ttft_ratio: float = Field(
        2.0, gt=1, description="Its p95 time to first token over the current one's."
    )
    requests: int = Field(10, ge=1, description="Requests it must have had before it is judged.")


class Rollout(Model):
    """How a changed spec replaces what runs."""

    surge: int = Field(1, ge=1, le=100, description="Replicas beyond the wanted number meanwhile.")
    canary_steps: list[CanaryStep] = Field(
        default_factory=list,
        max_length=16,
        description="Steps before it takes over; none: at once.",
    )
    abort_on: AbortOn = Field(default_factory=AbortOn, description="When to go back by itself.")
    start_seconds: float = Field(
        1800, gt=0, description="Given up when no candidate serves within this time."
    )


class Drain(Model):
    """How replicas end."""

    timeout_seconds: float = Field(
        600, ge=0, le=86_400, description="Longest wait for requests in flight."
    )


class InferenceDeploymentSpec(Model):
    """What is wanted."""

    path: Literal["serverless", "dedicated"] = Field(
        description="serverless: a pool for all tenants, billed by token. dedicated: isolated "
        "replicas of one tenant, billed by GPU-second."
    )
    tenant: str = Field("", max_length=63, description="The tenant's id; dedicated only.")
    model: str = Field("deepseek-v4-flash", description="The name customers ask for.")
    configurations: list[str] = Field(
        min_length=1,
        max_length=16,
        description="GPU configurations, the preferred (cheapest) first.",
    )
    engine: EngineSpec = Field(default_factory=EngineSpec, description="The inference engine.")
    weights: WeightsSpec = Field(description="Where the weights come from.")
    replicas: int | None = Field(
        None, ge=0, le=1000, description="A fixed number of replicas; excludes scaling."
    )
    scaling: Scaling | None = Field(None, description="Follow the load; excludes replicas.")
    budget_gpus: int | None = Field(
        None, ge=1, alias="budgetGPUs", description="GPUs it may ever hold at once, surge included."
    )
    hold_timeout_seconds: float = Field(
        120, ge=0, le=3600, description="How long requests wait while no replica serves."
    )
    spot: Spot = Field(default_factory=Spot, description="Use of spot configurations.")
    rollout: Rollout = Field(
        default_factory=Rollout, description="How a change replaces what runs."
    )
    drain: Drain = Field(default_factory=Drain, description="How replicas end.")
    isolation: Isolation = Field(default_factory=Isolation, description="Distance from others.")
    windows: list[Window] = Field(
        default_factory=list, max_length=32, description="It runs only then; none: always."
    )
    stopped: bool = Field(False, description="Keep it, without replicas.")

    rules = (
        Rule("has(self.replicas) != has(self.scaling)", "give either replicas or scaling"),
        Rule(
            "(self.path == 'dedicated') == (has(self.tenant) && self.tenant != '')",
            "a dedicated deployment has a tenant, a serverless pool has none",
        ),
        Rule(
            "self.path == oldSelf.path",
            "the path is immutable: delete the deployment and make another",
        ),
        Rule(
            "self.path == 'dedicated' || self.isolation.node == 'shared'",
            "a serverless pool shares its nodes",
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> "InferenceDeploymentSpec":
        if (self.replicas is None) == (self.scaling is None):
            raise ValueError("give either replicas or scaling")
        if (self.path == "dedicated") != bool(self.tenant):
            raise ValueError("a dedicated deployment has a tenant, a serverless pool has none")
        if self.path == "serverless" and self.isolation.node != "shared":
            raise ValueError("a serverless pool shares its nodes")
        return self


class Decision(StatusModel):
    """Why the number of replicas changed, with what it was decided from."""

    at: str
    before: int = Field(alias="from")
    after: int = Field(alias="to")
    signal: str = Field(description="What asked for the most: inflight, kv, ttft, itl, min, ...")
    value: float = Field(description="The signal's value.")
    why: str = ""
    inputs: dict[str, float] = Field(default_factory=dict, description="All of it, to replay.")


class Template(StatusModel):
    """What one revision runs: a change of any of it is a new revision."""

    model: str
    engine: EngineSpec
    weights: WeightsSpec
    isolation: Isolation


class RolloutStatus(StatusModel):
    """A candidate on its way."""

    revision: str
    started_at: str
    step: int = 0
    step_started_at: str | None = None
    weight: int = 0
    aborted: str | None = Field(None, description="Why it was given up.")


class InferenceDeploymentStatus(StatusModel):
    """What is true."""

    observed_generation: int = 0
    phase: str = ""
    conditions: list[Condition] = Field(default=[])
    replicas: int = Field(0, description="Replicas there are, in any phase.")
    desired: int = Field(0, description="Replicas wanted.")
    serving: int = Field(0, description="Replicas that can be asked.")
    loading: int = Field(0, description="Replicas on their way.")
    draining: int = Field(0, description="Replicas that finish their requests.")
    gpus: int = Field(0, description="GPUs reserved.")
    held_requests: int = Field(0, description="Requests that wait for a first replica.")
    selector: str = Field("", description="Labels of its replicas, for the scale subresource.")
    current_revision: str = ""
    template: Template | None = Field(
        None, description="What the current revision runs, kept while the spec says otherwise."
    )
    proven: bool = Field(False, description="The current revision has served once.")
    rollout: RolloutStatus | None = None
    refused_revision: str = Field("", description="A candidate that was given up; not tried again.")
    endpoint: str = Field("", description="What customers put into `model`.")
    hourly_usd: float | None = Field(None, description="What its replicas cost an hour now.")
    eta_seconds: float | None = Field(None, description="Estimated time until it serves.")
    decisions: list[Decision] = Field(default=[], max_length=10)


class InferenceDeployment(Stored[InferenceDeploymentSpec, InferenceDeploymentStatus]):
    """An InferenceDeployment as the API server holds it."""

    resource = DEPLOYMENTS
