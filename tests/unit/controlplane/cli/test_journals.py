"""Which journals a scale-down left behind, and the Jobs that replay them."""

from typing import Any

import yaml
from support import helm

from controlplane.cli.journals import CLAIM_LABEL, Orphans, orphans, replay_job

CLAIMS = [*(f"journal-gw-{number}" for number in range(4)), "data-gw-3", "journal-other-3"]


def job(gateway: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"{gateway}-replay"}, "status": status}


def done(gateway: str) -> dict[str, Any]:
    return job(gateway, succeeded=1, conditions=[{"type": "Complete", "status": "True"}])


def failed(gateway: str) -> dict[str, Any]:
    return job(gateway, failed=1, conditions=[{"type": "Failed", "status": "True"}])


def found(*, replicas: int = 2, pods: tuple[str, ...] = (), jobs: Any = ()) -> Orphans:
    return orphans("gw", replicas=replicas, claims=CLAIMS, pods=pods, jobs=jobs)


def test_claims_beyond_the_wanted_number_are_replayed() -> None:
    assert found().replay == {"gw-2": "journal-gw-2", "gw-3": "journal-gw-3"}


def test_a_gateway_that_still_ends_keeps_its_journal() -> None:
    assert found(pods=("gw-2", "gw-3")).replay == {}


def test_a_wanted_gateway_that_is_down_replays_its_own() -> None:
    assert found(replicas=4, pods=()).replay == {}


def test_a_claim_is_replayed_once() -> None:
    assert found(jobs=[done("gw-2"), job("gw-3", active=1)]) == Orphans({}, [])


def test_a_replay_that_failed_is_made_anew() -> None:
    again = found(replicas=3, jobs=[failed("gw-3")])
    assert again == Orphans({"gw-3": "journal-gw-3"}, ["gw-3-replay"])


def test_a_gateway_that_came_back_will_be_replayed_again() -> None:
    assert found(replicas=4, jobs=[done("gw-3")]).forget == ["gw-3-replay"]


def test_other_sets_and_volumes_are_left_alone() -> None:
    assert found(replicas=0).replay.keys() == {f"gw-{number}" for number in range(4)}


def test_the_charts_job_gets_the_claim_and_the_gateways_name() -> None:
    (template,) = [
        yaml.safe_load(it["data"]["job.yaml"])
        for it in helm.of_kind(helm.render(), "ConfigMap")
        if "job.yaml" in it["data"]
    ]
    made = replay_job(template, "flashplane", "gw-3", "journal-gw-3")
    pod = made["spec"]["template"]["spec"]
    env = {it["name"]: it.get("value") for it in pod["containers"][0]["env"]}
    volumes = {it["name"]: it for it in pod["volumes"]}
    mounted = {it["name"] for it in pod["containers"][0]["volumeMounts"]}
    assert made["metadata"]["name"] == "gw-3-replay"
    assert made["metadata"]["labels"][CLAIM_LABEL] == "gw-3"
    assert env["FLASHPLANE_GATEWAY_NAME"] == "flashplane/gw-3"
    assert volumes["journal"]["persistentVolumeClaim"] == {"claimName": "journal-gw-3"}
    assert mounted == set(volumes)
