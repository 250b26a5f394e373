"""Orders: what customers and admins ask for, checked against path, prices and money.

Called by the REST API. Everything that can be refused is refused here, before a row is written.
"""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.accounts import budgets, ledger
from controlplane.crd.base import Path
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpointSpec
from controlplane.crd.inference import InferenceDeploymentSpec
from controlplane.deployments import holdings, rows, specs
from controlplane.deployments.models import Deployment, OfferedConfiguration
from controlplane.deployments.quote import (
    Market,
    Offer,
    Quote,
    fewest_replicas,
    quote,
    refusals,
    unpriced,
)
from controlplane.deployments.specs import Json, Spec
from controlplane.errors import (
    BudgetExceeded,
    InsufficientBalance,
    ModelNotFound,
    NotResponsible,
    UnprocessableRequest,
)
from controlplane.pricing import book, gpu, storage
from controlplane.pricing.drafts import SERVERLESS
from controlplane.tenants import tenants


@dataclass(frozen=True, slots=True)
class Terms:
    """What this installation decides: where pools live, and weights for who names none."""

    release_namespace: str
    default_weights: Json


@dataclass(frozen=True, slots=True)
class Order:
    """A deployment that is asked for. `tenant_id` None: a serverless pool."""

    tenant_id: uuid.UUID | None
    name: str
    path: Path
    spec: Json
    by_tenant: bool


def place(
    session: Session, order: Order, terms: Terms, *, idempotency_key: str | None = None
) -> Deployment:
    """Order a deployment; the same `idempotency_key` again is the same order.

    Raises:
        UnprocessableRequest: the spec breaks a rule, or a configuration is not for sale.
        NotResponsible: asks for what the other party owns on this path.
        InsufficientBalance: the account does not cover the first minute of its fewest replicas.
        NotFound: no such tenant.
        Conflict: the name is taken, or the key was used for another order.
    """
    spec = _parsed(session, order, terms)
    earlier = rows.with_key(session, tenant_id=order.tenant_id, idempotency_key=idempotency_key)
    # An order that was taken is not refused to whoever asks again, whatever has changed since.
    if earlier is None:
        _require_sale(session, order.tenant_id, spec)
        _require_money(session, order.tenant_id, spec)
    return rows.add(
        session,
        tenant_id=order.tenant_id,
        namespace=specs.namespace_of(order.tenant_id)
        if order.tenant_id is not None
        else terms.release_namespace,
        name=order.name,
        path=order.path.value,
        spec=spec.wire(),
        idempotency_key=idempotency_key,
    )


def check(session: Session, order: Order, terms: Terms) -> Spec:
    """Return the checked spec of an order. Raises as `place` does, but for money."""
    spec = _parsed(session, order, terms)
    _require_sale(session, order.tenant_id, spec)
    return spec


def _parsed(session: Session, order: Order, terms: Terms) -> Spec:
    if (order.path is Path.SERVERLESS) != (order.tenant_id is None):
        raise UnprocessableRequest(
            "A serverless pool has no tenant; every other deployment has one.", param="tenant_id"
        )
    if order.tenant_id is not None:
        tenants.living(session, tenant_id=order.tenant_id)
    given = order.spec
    if order.path is not Path.BARE and "weights" not in given:
        given = {**given, "weights": terms.default_weights}
    return specs.parse(order.path, given, tenant_id=order.tenant_id, by_tenant=order.by_tenant)


def preview(session: Session, order: Order, terms: Terms) -> Quote:
    """Return what an order would get, without ordering it. Raises as `check` does."""
    spec = check(session, order, terms)
    available_p = None
    if order.tenant_id is not None:
        available_p = ledger.balance(session, tenant_id=order.tenant_id).available_p
    return quote(spec, market(session, _model(spec)), available_p=available_p)


def change(session: Session, row: Deployment, merge: Json, *, by_tenant: bool) -> Deployment:
    """Change a locked row's spec by a JSON merge patch.

    Running again after the money was used up is a change, too: one that leaves it not stopped.

    Raises:
        UnprocessableRequest: the result breaks a rule, or the change takes on another path.
        NotResponsible: the change asks for what the other party owns on this path.
        InsufficientBalance: it is to run, and the account does not cover a minute.
    """
    path = Path(row.path)
    specs.check_storable(merge)
    specs.refuse_others_work(path, merge, by_tenant=by_tenant)
    spec = _changed(row, merge)
    before = specs.stored(row.path, row.spec)
    if _model(spec) != _model(before):
        raise UnprocessableRequest("spec.model: a deployment keeps it.", param="spec.model")
    if by_tenant:
        specs.refuse_another_program(before, spec)
    if not specs.is_stopped(spec):  # what is not sold any more can be stopped all the same
        _require_sale(session, row.tenant_id, spec)
    starts = not specs.is_stopped(spec) and (row.out_of_funds or specs.is_stopped(before))
    if starts:
        _require_money(session, row.tenant_id, spec, but=row.id)
    out_of_funds = row.out_of_funds and not starts
    return rows.change(session, row, spec=spec.wire(), out_of_funds=out_of_funds)


def add_ssh_key(session: Session, row: Deployment, *, name: str, public_key: str) -> Deployment:
    """Let another key into a locked bare endpoint; one of the same name is replaced.

    Raises:
        NotResponsible: it is no bare endpoint.
        UnprocessableRequest: not a public key.
    """
    keys = [key for key in _ssh_keys(row) if key["name"] != name]
    keys.append({"name": name, "publicKey": public_key})
    return _let_in(session, row, keys)


def remove_ssh_key(session: Session, row: Deployment, *, name: str) -> Deployment:
    """Take a key from a locked bare endpoint, which ends its sessions; none of it: no change.

    Raises:
        NotResponsible: it is no bare endpoint.
    """
    keys = [key for key in _ssh_keys(row) if key["name"] != name]
    return _let_in(session, row, keys)


def offers(session: Session) -> list[Offer]:
    """Return the catalogue as last seen, in its order."""
    listed = session.scalars(select(OfferedConfiguration).order_by(OfferedConfiguration.position))
    return [Offer(GPUConfiguration.model_validate(it.body), it.free_replicas) for it in listed]


def market(session: Session, model: str | None = None) -> Market:
    """Return what there is to buy now; with the serverless price of `model`."""
    now = datetime.now(UTC)
    serverless = None
    if model is not None:
        with suppress(ModelNotFound):
            serverless = book.current_for(session, None).price(model, SERVERLESS, now)
    return Market(
        offers={offer.configuration.id: offer for offer in offers(session)},
        rates_p_per_hour=gpu.rates_p_per_hour(session, now),
        serverless=serverless,
        storage_p_per_gib_hour=storage.rates_p_per_gib_hour(session, now),
    )


def _changed(row: Deployment, merge: Json) -> Spec:
    current = {name: it for name, it in row.spec.items() if name not in ("path", "tenant")}
    merged = specs.merged(current, merge)
    return specs.parse(Path(row.path), merged, tenant_id=row.tenant_id, by_tenant=False)


def _let_in(session: Session, row: Deployment, keys: list[Json]) -> Deployment:
    """Change who gets in and nothing else: it takes no money, and starts nothing."""
    spec = _changed(row, {"sshKeys": keys})
    return rows.change(session, row, spec=spec.wire(), out_of_funds=row.out_of_funds)


def _model(spec: Spec) -> str | None:
    return spec.model if isinstance(spec, InferenceDeploymentSpec) else None


def _ssh_keys(row: Deployment) -> Iterator[Json]:
    spec = specs.stored(row.path, row.spec)
    if not isinstance(spec, GPUEndpointSpec):
        raise NotResponsible(
            f"On the {row.path} path the platform runs the machines: there is no SSH.",
            param="name",
        )
    yield from (key.wire() for key in spec.ssh_keys)


def _require_sale(session: Session, tenant_id: uuid.UUID | None, spec: Spec) -> None:
    """Refuse what could never serve, or what nobody said the price of."""
    prices = market(session)
    refused = refusals(spec, prices)
    if len(refused) == len(spec.configurations):
        why = "; ".join(refused.values())
        raise UnprocessableRequest(why, code="does_not_fit", param="spec.configurations")
    missing = unpriced(spec, prices)
    if tenant_id is not None and missing is not None:
        raise UnprocessableRequest(
            f"The GPU configuration {missing!r} is not for sale: it has no price.",
            code="no_price",
            param="spec.configurations",
        )


def _require_money(
    session: Session, tenant_id: uuid.UUID | None, spec: Spec, *, but: uuid.UUID | None = None
) -> None:
    """Refuse what would be stopped at once: a first minute must be there, next to one of all else
    that the tenant runs, `but` for one row. Starting up is free, so it is asked before. What is
    held for time ahead of what runs is there for its minute."""
    if tenant_id is None or specs.is_stopped(spec):
        return
    prices = market(session)
    least_p = _minute_p(spec, prices)
    for row in rows.running(session, tenant_id=tenant_id):
        if row.id != but and not specs.is_stopped(other := specs.stored(row.path, row.spec)):
            least_p += _minute_p(other, prices)
    balance, held = holdings.balance(session, tenant_id=tenant_id)
    if balance.available_p + held.gpu_p < least_p:
        raise InsufficientBalance(
            "The balance does not cover a minute of this and of what runs: top up first."
        )
    budget = budgets.exhausted(session, tenant_id=tenant_id)
    if budget is not None:
        raise BudgetExceeded(f"Budget exceeded: {budget.words} is used up.")


def _minute_p(spec: Spec, prices: Market) -> int:
    dearest_p = max(prices.rate_p_per_hour(name) or 0 for name in spec.configurations)
    return dearest_p * max(1, fewest_replicas(spec)) // 60
