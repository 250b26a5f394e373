"""`flashplane gateway-replay | gateway-orphans`: journals whose gateway does not come back.

A gateway that stops stages its last usage itself; only when the database is down meanwhile, or the
gateway is killed, does its journal keep some. The gateway's next life replays it. In a cluster that
wants fewer gateways there is no next life: there `gateway-orphans` finds the claims that were left
behind and makes a Job of `gateway-replay` for each. Run by the chart's CronJob.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from controlplane import log
from controlplane.cluster import PODS, VOLUME_CLAIMS, AlreadyExists, Cluster, Object, Resource
from controlplane.errors import StartupError
from controlplane.settings import Settings

STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
VOLUME = "journal"  # the claim's name in the StatefulSet, the volume's in the Job
CLAIM_LABEL = "flashplane.io/journal"


@dataclass(frozen=True)
class Orphans:
    """What is to be done: claims to replay by their gateway's name, and Jobs that have ended."""

    replay: Mapping[str, str]
    forget: Sequence[str]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("gateway-replay", rich_help_panel="Processes")(gateway_replay)
    app.command("gateway-orphans", rich_help_panel="Processes")(gateway_orphans)


def gateway_replay() -> None:
    """Stage what FLASHPLANE_GATEWAY_NAME left in FLASHPLANE_JOURNAL_DIR, and end its holds.

    For a gateway that does not come back; one that does replays its journal itself.
    """
    from controlplane.db import open_engine, session_factory
    from controlplane.usage import recovery
    from controlplane.usage.journal import JournalDir

    settings = Settings()
    if not settings.database_url:
        raise StartupError("Set DATABASE_URL to the database that the gateway served.")
    log.configure("replay", log_dir=settings.log_dir, level=settings.log_level)
    directory = JournalDir(
        settings.journal_dir,
        keep_seconds=settings.journal_keep_hours * 3600,
        reserve_bytes=settings.journal_min_free_bytes,
    )
    engine = open_engine(settings.database_url, pool_size=1)
    try:
        recovery.replay(session_factory(engine), directory, settings.gateway_name)
    finally:
        engine.dispose()
        directory.close()
    typer.echo(f"Nothing of {settings.gateway_name} is left in {settings.journal_dir}.")


def gateway_orphans(
    namespace: Annotated[str, typer.Option(help="Where the gateways are.")],
    statefulset: Annotated[str, typer.Option(help="The gateways' StatefulSet.")],
    job: Annotated[Path, typer.Option(help="Job to make for a claim, as YAML.")],
) -> None:
    """Have the journals replayed that a scale-down of a StatefulSet left behind."""
    from controlplane.kube import Kube

    cluster = Kube(Settings().kubeconfig)
    try:
        for name in replay_orphans(
            cluster, namespace, statefulset, yaml.safe_load(job.read_text())
        ):
            typer.echo(f"The journal of {name} is replayed.")
    finally:
        cluster.close()


def replay_orphans(
    cluster: Cluster, namespace: str, statefulset: str, template: Object
) -> Iterator[str]:
    """Make a Job for each claim that was left; yield its gateway's name.

    Raises:
        ClusterError: the API server did not answer, or refused.
    """
    owner = cluster.get(STATEFUL_SETS, statefulset, namespace=namespace)
    found = orphans(
        statefulset,
        replicas=owner["spec"].get("replicas", 1),
        claims=[_name(it) for it in _all(cluster, VOLUME_CLAIMS, namespace)],
        pods=[_name(it) for it in _all(cluster, PODS, namespace)],
        jobs=list(_all(cluster, JOBS, namespace, CLAIM_LABEL)),
    )
    for name in found.forget:
        cluster.delete(JOBS, name, namespace=namespace)
    for gateway, claim in found.replay.items():
        try:
            cluster.create(JOBS, replay_job(template, namespace, gateway, claim))
        except AlreadyExists:  # the one just forgotten is still going; the next run comes
            continue
        yield gateway


def orphans(
    statefulset: str,
    *,
    replicas: int,
    claims: Sequence[str],
    pods: Sequence[str],
    jobs: Sequence[Object],
) -> Orphans:
    """Return what the claims of a StatefulSet's former pods ask for.

    A claim is left once its number is no longer wanted and its pod is gone. A Job that has ended
    well says that it was replayed, until its gateway is there again; one that failed is made anew.
    """
    pattern = re.compile(rf"{VOLUME}-({re.escape(statefulset)}-(\d+))")
    matches = [match for claim in claims if (match := pattern.fullmatch(claim))]
    left = {it[1]: it[0] for it in matches if int(it[2]) >= replicas and it[1] not in pods}
    ended = {_name(job) for job in jobs if _ended(job)}
    failed = {_name(job) for job in jobs if _ended(job) and not job["status"].get("succeeded")}
    kept = {_name(job) for job in jobs} - failed
    return Orphans(
        replay={it: claim for it, claim in left.items() if _job_name(it) not in kept},
        forget=sorted(failed | (ended - {_job_name(gateway) for gateway in left})),
    )


def replay_job(template: Object, namespace: str, gateway: str, claim: str) -> Object:
    """Return the Job that replays a claim: the chart's template with both names put in."""
    spec: dict[str, Any] = template["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    name = {"name": "FLASHPLANE_GATEWAY_NAME", "value": f"{namespace}/{gateway}"}
    volume = {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}
    pod = {
        **pod,
        "containers": [{**container, "env": [*container["env"], name]}],
        "volumes": [*pod["volumes"], volume],
    }
    labels = {**template["metadata"]["labels"], CLAIM_LABEL: gateway}
    metadata = {"name": _job_name(gateway), "namespace": namespace, "labels": labels}
    spec = {**spec, "template": {**spec["template"], "spec": pod}}
    return {**template, "metadata": metadata, "spec": spec}


def _job_name(gateway: str) -> str:
    return f"{gateway}-replay"


def _ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(it["type"] in ("Complete", "Failed") and it["status"] == "True" for it in conditions)


def _name(body: Object) -> str:
    return str(body["metadata"]["name"])


def _all(
    cluster: Cluster, resource: Resource, namespace: str, labels: str = ""
) -> Iterator[Object]:
    continuation = ""
    while True:
        page = cluster.list(resource, namespace=namespace, labels=labels, continuation=continuation)
        yield from page.items
        continuation = page.continuation
        if not continuation:
            return
