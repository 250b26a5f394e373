"""Revisions: what of a spec makes a new engine necessary.

Model, engine, weights and isolation do. The list of GPU configurations does not: each replica keeps
its own, so a fallback can be added in a shortage without replacing what runs. A replica on a
configuration that is no longer listed is replaced by itself, without a canary.
"""

import hashlib
import json

from controlplane.crd.inference import InferenceDeployment, InferenceDeploymentSpec, Template


def template(spec: InferenceDeploymentSpec) -> Template:
    """Return what a spec's revision runs."""
    return Template(
        model=spec.model, engine=spec.engine, weights=spec.weights, isolation=spec.isolation
    )


def revision(of: Template) -> str:
    """Return a template's short hash: equal for equal templates, on every machine.

    What has its default value is left out, so that an operator whose types have one field more
    does not take every deployment for changed.
    """
    said = of.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:10]


def endpoint(deployment: InferenceDeployment, model: str) -> str:
    """Return what customers put into `model`; a dedicated deployment's is its tenant's alone."""
    return f"{model}@{deployment.name}" if deployment.spec.path == "dedicated" else model
