"""The real helm and kubectl over the charts of this repository. Used by tests/kube."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kube_server import AssetsMissing, assets

ROOT = Path(__file__).resolve().parents[2]
CRDS_CHART = ROOT / "charts/flashplane-crds"
CHART = ROOT / "charts/flashplane"
NEWEST = "1.34"  # of which kubernetes-validate has schemas and helm knows the kinds
OLDEST = "1.20"

# The least that must be given: where secrets are.
GIVEN = {
    "database": {"existingSecret": "given-database"},
    "redis": {"existingSecret": "given-redis"},
    "pepper": {"existingSecret": "given-pepper"},
    "sshGateway": {"hostKey": {"existingSecret": "given-host-key"}},
}


def program(name: str) -> str:
    """Return the path of `helm` or `kubectl`, or skip the test and say how to get it."""
    try:
        file = assets() / name
    except AssetsMissing as missing:
        pytest.skip(str(missing))
    if not file.exists():
        pytest.skip(f"{file} is missing: leave KUBEBUILDER_ASSETS unset, or put it there")
    return str(file)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it, maps merged as helm merges values."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def run(
    *arguments: str, values: dict[str, Any] | None = None, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm; values go in on its standard input."""
    command = [program("helm"), *arguments]
    if values is not None:
        command += ["--values", "-"]
    # A helm of tests keeps nothing, and never sees a cluster of whoever runs them.
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    return subprocess.run(
        command,
        input=None if values is None else yaml.safe_dump(values),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def render(
    chart: Path = CHART,
    values: dict[str, Any] | None = None,
    *,
    version: str = NEWEST,
    apis: Sequence[str] = (),
    given: bool = True,
) -> list[dict[str, Any]]:
    """Return the objects of a chart, hooks and tests included.

    Args:
        values: laid on what must be given.
        version: of the cluster.
        apis: kinds the cluster has beyond Kubernetes' own, as `group/version/Kind`.
    """
    result = rendering(chart, values, version=version, apis=apis, given=given)
    assert result.returncode == 0, result.stderr
    return [body for body in yaml.safe_load_all(result.stdout) if body]


def rendering(
    chart: Path = CHART,
    values: dict[str, Any] | None = None,
    *,
    version: str = NEWEST,
    apis: Sequence[str] = (),
    given: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Return what `helm template` said, for those that expect a refusal."""
    whole = merged(GIVEN, values or {}) if given and chart == CHART else (values or {})
    options = [word for api in apis for word in ("--api-versions", api)]
    return run(
        *("template", "fp", str(chart), "--namespace", "flashplane", "--kube-version", version),
        *options,
        values=whole,
    )


def of_kind(objects: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of one kind."""
    return [body for body in objects if body["kind"] == kind]


def pod_templates(objects: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return every pod that the objects would make, by `<kind>/<name>`: metadata and spec."""
    found = {}
    for body in objects:
        spec = body.get("spec", {})
        if body["kind"] == "Pod":
            template = body
        elif body["kind"] == "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
        elif "template" in spec:
            template = spec["template"]
        else:
            continue
        found[f"{body['kind']}/{body['metadata']['name']}"] = template
    return found
