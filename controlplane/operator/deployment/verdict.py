"""The planner's words on a deployment's configurations. Pure; called by `controller`."""

from collections.abc import Mapping
from functools import lru_cache

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.engine import EngineSpec, WeightsSpec
from controlplane.crd.inference import InferenceDeploymentSpec
from controlplane.operator.deployment.observed import Verdict
from controlplane.planner.estimate import estimate_start
from controlplane.planner.launch import plan_launch
from controlplane.planner.refusal import Refused


def verdicts(
    spec: InferenceDeploymentSpec, catalogue: Mapping[str, GPUConfiguration]
) -> dict[str, Verdict]:
    """Return the planner's verdict by id of the listed configurations that the catalogue has."""
    engine, weights = spec.engine.model_dump_json(), spec.weights.model_dump_json()
    return {
        name: _verdict(engine, weights, catalogue[name].model_dump_json())
        for name in spec.configurations
        if name in catalogue
    }


@lru_cache(maxsize=4096)
def _verdict(engine_json: str, weights_json: str, configuration_json: str) -> Verdict:
    """The same question comes with every look at a deployment."""
    engine = EngineSpec.model_validate_json(engine_json)
    weights = WeightsSpec.model_validate_json(weights_json)
    configuration = GPUConfiguration.model_validate_json(configuration_json)
    try:
        launch = plan_launch(engine, configuration, weights_bytes=weights.size_bytes)
    except Refused as refused:
        return Verdict(refused=refused.reason, message=refused.message)
    return Verdict(
        inflight=launch.target_inflight,
        start_seconds=estimate_start(launch, configuration, weights).seconds,
        max_model_len=launch.max_model_len,
    )
