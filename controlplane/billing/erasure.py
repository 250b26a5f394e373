"""Deletes a tenant for ever: the person is erased, the books stay. Called by the admin API.

Names, addresses, people, webhooks, what they told, and what deployments were made of go. Promises
to use something end where they have been reckoned. Ids, usage, the ledger,
invoices and the audit log stay, as the law asks of books; they tell the tenant by its id. What the
ledger and final invoices say in words cannot be changed and is not.
"""

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import String, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session

from controlplane.accounts import funds, ledger
from controlplane.accounts.funds import LockedFunds
from controlplane.accounts.ledger import Entry, Posting
from controlplane.accounts.models import Account, Hold
from controlplane.billing.invoices import coverage
from controlplane.billing.invoices.models import BillingProfile
from controlplane.db import Base
from controlplane.deployments.commitments import Commitment, CommitmentDue
from controlplane.deployments.models import Deployment, GpuInterval, VolumeInterval
from controlplane.errors import Conflict, NotFound
from controlplane.money import p_to_usd
from controlplane.tenants.models import ApiKey, Membership, Person, Project, Tenant
from controlplane.usage.models import StagedUsage
from controlplane.webhooks.models import WebhookEndpoint, WebhookNotice

# Rows that are nothing but the person's. Deliveries go with their endpoints, before their notices.
_PERSONAL: tuple[type[Base], ...] = (BillingProfile, Membership, WebhookEndpoint, WebhookNotice)
# A life that was proven this recently may go on.
_RECENT = timedelta(minutes=10)


def erase(
    session: Session, *, tenant_id: uuid.UUID, author: str, waive_balance: bool = False
) -> Tenant:
    """Make a tenant `deleted`, which it stays; doing it twice is once.

    Args:
        author: who is written down as having given up a balance.
        waive_balance: give up what is left on the account, money or debt, by an adjustment, and
            what is due of commitments and was not collected.

    Raises:
        NotFound: no such tenant.
        Conflict: something of it still runs, is unsettled or on no final invoice, or money is
            left.
    """
    # In the order in which holds and orders lock; none of either comes in between.
    accounts = funds.lock(session, tenant_ids=[tenant_id], platform=["adjustments"])
    tenant = session.get(Tenant, tenant_id, with_for_update=True, populate_existing=True)
    if tenant is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    if tenant.status == "deleted":
        return tenant
    _refuse_unfinished(session, tenant_id)
    _close(session, accounts, tenant_id, author=author, waive_balance=waive_balance)
    _end_commitments(session, tenant_id)
    _forget(session, tenant_id)
    tenant.name, tenant.status = f"deleted {tenant_id}", "deleted"
    session.flush()
    return tenant


def _refuse_unfinished(session: Session, tenant_id: uuid.UUID) -> None:
    recently = datetime.now(UTC) - _RECENT
    unfinished = {
        "a deployment that is not deleted": select(Deployment).where(
            Deployment.tenant_id == tenant_id, Deployment.state != "deleted"
        ),
        "a request that still runs": select(Hold).where(
            Hold.tenant_id == tenant_id, Hold.state == "open"
        ),
        "a request that is not settled": select(StagedUsage).where(
            StagedUsage.tenant_id == tenant_id
        ),
    }
    for table in (GpuInterval, VolumeInterval):
        unfinished[f"a row of {table.__tablename__} that is not billed to its end"] = select(
            table
        ).where(
            table.tenant_id == tenant_id,
            or_(
                table.billed_ms < table.proven_ms,
                table.held_p > 0,
                table.ended_at.is_(None) & (table.proven_until > recently),
            ),
        )
    for what, query in unfinished.items():
        if session.scalar(select(query.exists())):
            raise Conflict(f"The tenant has {what}: end that first.")
    if coverage.owes_invoice(session, tenant_id=tenant_id):
        raise Conflict("The tenant has charges that are on no final invoice yet: wait for that.")


def _close(
    session: Session,
    accounts: LockedFunds,
    tenant_id: uuid.UUID,
    *,
    author: str,
    waive_balance: bool,
) -> None:
    account, ours = accounts.by_tenant[tenant_id], accounts.by_kind["adjustments"]
    left_p, due_p = account.balance_p, _due_p(session, tenant_id)
    if (left_p or due_p) and not waive_balance:
        raise Conflict(
            f"The account has {p_to_usd(left_p)} USD, and {p_to_usd(due_p)} USD are due of"
            " commitments: bring both to zero, or give them up with waive_balance.",
            param="waive_balance",
        )
    if left_p:
        entries = [Entry(account, -left_p), Entry(ours, left_p)]
        reason = "given up when the tenant was deleted"
        ledger.post(session, [Posting("adjustment", tenant_id, entries, reason, author)])
    session.execute(
        update(Account)
        .where(Account.tenant_id == tenant_id)
        .values(terms="prepaid", credit_limit_p=0)
        .execution_options(synchronize_session=False)
    )


def _due_p(session: Session, tenant_id: uuid.UUID) -> int:
    left = func.sum(CommitmentDue.due_p - CommitmentDue.paid_p)
    query = select(func.coalesce(left, 0)).where(CommitmentDue.tenant_id == tenant_id)
    return int(session.execute(query).scalar_one())


def _end_commitments(session: Session, tenant_id: uuid.UUID) -> None:
    """End what runs or is to begin where it has been reckoned, so that nothing more falls due."""
    session.execute(
        update(Commitment)
        .where(
            Commitment.tenant_id == tenant_id,
            or_(Commitment.ends_at.is_(None), Commitment.due_until < Commitment.ends_at),
        )
        .values(
            ends_at=Commitment.due_until,
            # A term is never empty: one of which nothing was reckoned is left its shortest.
            starts_at=func.least(
                Commitment.starts_at, Commitment.due_until - timedelta(microseconds=1)
            ),
        )
        .execution_options(synchronize_session=False)
    )


def _forget(session: Session, tenant_id: uuid.UUID) -> None:
    members = select(Membership.person_id).where(Membership.tenant_id == tenant_id)
    people = session.scalars(members.where(Membership.person_id.is_not(None))).all()
    for table in _PERSONAL:
        session.execute(delete(table).where(table.__table__.c.tenant_id == tenant_id))
    # Whoever belongs to another tenant too, or to the platform's staff, stays known there.
    elsewhere = select(Membership).where(Membership.person_id == Person.id).exists()
    session.execute(delete(Person).where(Person.id.in_(people), ~elsewhere))
    pseudonym = "deleted " + cast(Project.id, String)
    session.execute(update(Project).where(Project.tenant_id == tenant_id).values(name=pseudonym))
    now = datetime.now(UTC)
    keys = update(ApiKey).where(ApiKey.tenant_id == tenant_id)
    session.execute(keys.values(name="deleted"))
    session.execute(keys.where(ApiKey.revoked_at.is_(None)).values(revoked_at=now))
    session.execute(
        update(Deployment)
        .where(Deployment.tenant_id == tenant_id)
        .values(spec={}, status={}, refusal=None, idempotency_key=None)
    )
