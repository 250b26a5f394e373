"""Who does what on each path: data, served by the API and enforced.

What the platform does not own on a path, the API and the CRDs refuse to do there.
"""

from enum import StrEnum

from controlplane.crd.base import Path


class Layer(StrEnum):
    """A part of the work."""

    PRODUCT_BEHAVIOUR = "productBehaviour"
    PROMPT_AND_CONTEXT = "promptAndContext"
    APPLICATION_INTEGRATION = "applicationIntegration"
    MODEL_VALIDATION = "modelValidation"
    SCALING_AND_RUNTIME = "scalingAndRuntime"
    INCIDENT_RESPONSE = "incidentResponse"


class Party(StrEnum):
    """Who does it."""

    CUSTOMER = "customer"
    PLATFORM = "platform"
    SHARED = "shared"


_CUSTOMERS_OWN = {
    Layer.PRODUCT_BEHAVIOUR: Party.CUSTOMER,
    Layer.PROMPT_AND_CONTEXT: Party.CUSTOMER,
    Layer.APPLICATION_INTEGRATION: Party.CUSTOMER,
}

RESPONSIBILITY: dict[Path, dict[Layer, Party]] = {
    Path.SERVERLESS: _CUSTOMERS_OWN
    | {
        Layer.MODEL_VALIDATION: Party.SHARED,
        Layer.SCALING_AND_RUNTIME: Party.PLATFORM,
        Layer.INCIDENT_RESPONSE: Party.PLATFORM,
    },
    Path.DEDICATED: _CUSTOMERS_OWN
    | {
        Layer.MODEL_VALIDATION: Party.CUSTOMER,
        Layer.SCALING_AND_RUNTIME: Party.PLATFORM,
        Layer.INCIDENT_RESPONSE: Party.PLATFORM,
    },
    Path.BARE: _CUSTOMERS_OWN
    | {
        Layer.MODEL_VALIDATION: Party.CUSTOMER,
        Layer.SCALING_AND_RUNTIME: Party.CUSTOMER,
        Layer.INCIDENT_RESPONSE: Party.CUSTOMER,
    },
}
