"""The two REST apps: platform admins' and tenants'. Made by the `flashplane` entry points.

They never share an origin: the admin app listens on an address of its own, the tenant app answers
behind the gateway for every path that is not the gateway's.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI

from controlplane.api import errors
from controlplane.api.contract import route as contract
from controlplane.api.contract.callers import Prover
from controlplane.api.contract.oidc import Verifier
from controlplane.api.contract.state import ApiState
from controlplane.api.deployments import admin_deployments, deployments
from controlplane.api.identity import (
    admin_keys,
    erasure,
    keys,
    members,
    models,
    peppers,
    projects,
    tenants,
)
from controlplane.api.money import (
    account,
    books,
    budgets,
    burn,
    commitments,
    corrections,
    exports,
    invoices,
    payments,
    reconcile,
    rejected,
)
from controlplane.api.notices import audit, webhooks
from controlplane.api.prices import gpu_prices, prices, storage_prices
from controlplane.api.schemas import ErrorBody, Health
from controlplane.api.usage import organization
from controlplane.billing.invoices.profiles import Seller
from controlplane.db import open_engine, session_factory
from controlplane.deployments.orders import Terms
from controlplane.settings import Settings

ADMIN_ROUTERS = (
    tenants.router,
    erasure.router,
    keys.admin_router,
    projects.admin_router,
    members.admin_router,
    admin_keys.router,
    peppers.router,
    models.router,
    corrections.router,
    prices.router,
    gpu_prices.router,
    storage_prices.router,
    commitments.admin_router,
    burn.admin_router,
    admin_deployments.router,
    books.router,
    exports.router,
    budgets.admin_router,
    invoices.router,
    reconcile.router,
    rejected.router,
    organization.admin_router,
    audit.admin_router,
    webhooks.admin_router,
)
TENANT_ROUTERS = (
    account.router,
    budgets.router,
    keys.router,
    projects.router,
    members.router,
    commitments.tenant_router,
    burn.tenant_router,
    deployments.router,
    organization.router,
    invoices.tenant_router,
    payments.router,
    audit.tenant_router,
    webhooks.tenant_router,
)


def create_admin_app(settings: Settings) -> FastAPI:
    """Return the platform admins' REST API.

    Raises:
        StartupError: a route is in no policy, or the identity provider's settings make no sense.
    """
    return _create(settings, "Flashplane admin API", ADMIN_ROUTERS)


def create_tenant_app(settings: Settings) -> FastAPI:
    """Return the tenants' REST API; raises as `create_admin_app` does."""
    return _create(settings, "Flashplane account API", TENANT_ROUTERS)


def _create(settings: Settings, title: str, routers: Sequence[APIRouter]) -> FastAPI:
    # Connects on first use, so the app also works where nobody runs its lifespan.
    engine = open_engine(settings.database_url, pool_size=settings.database_pool_size)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(
        title=title,
        version=version("flashplane"),
        lifespan=lifespan,
        responses={
            "default": {"model": ErrorBody, "description": "An error"},
            422: {"model": ErrorBody, "description": "A value out of its domain"},
        },
    )
    app.state.api = ApiState(
        sessions=session_factory(engine),
        prover=Prover(
            settings.key_pepper.get_secret_value().encode(),
            _verifier(settings),
            settings.key_pepper_previous.get_secret_value().encode(),
        ),
        webhooks_to_loopback=settings.webhooks_to_loopback,
        terms=Terms(settings.operator_namespace, settings.default_weights),
        seller=Seller.of(settings),
        payment_secrets=tuple(
            secret.get_secret_value().encode() for secret in settings.payment_webhook_secrets
        ),
        readers=contract.readers(routers),
        entrance=CapacityLimiter(settings.database_pool_size),
    )
    errors.install(app)
    contract.check(routers)
    for router in routers:
        app.include_router(router)

    @app.get("/health", tags=["health"])
    async def health() -> Health:
        """Tell that this process is alive."""
        return Health()

    return app


def _verifier(settings: Settings) -> Verifier | None:
    if not settings.oidc_issuer:
        return None
    return Verifier(settings.oidc_issuer, settings.oidc_client_id)
