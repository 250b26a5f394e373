"""Locked balances: the one way an account's balance or held sum changes.

Called by holds, the ledger and settlement. The rule that keeps money exact: whoever changes an
account's sums, or the state of one of its holds, has locked the account here first. Tenants'
accounts are locked in id order and the platform's after them, so no two transactions wait for each
other. Entries move balances, inside the
database; only held sums are written from here.
"""

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import String, Uuid, any_, bindparam, column, func, select, update
from sqlalchemy.orm import Session

from controlplane.accounts.models import Account, BalanceType
from controlplane.arrays import ArrayOf

# Built once: these run for every batch of holds, and building costs more than running.
_FUNDS = select(
    Account.id,
    Account.kind,
    Account.tenant_id,
    Account.balance_p,
    Account.granted_p,
    Account.held_p,
    Account.credit_limit_p,
).order_by(Account.id)
_TENANTS = _FUNDS.where(Account.tenant_id == any_(bindparam("tenant_ids", type_=ArrayOf(Uuid))))
_PLATFORM = _FUNDS.where(
    Account.tenant_id.is_(None), Account.kind == any_(bindparam("platform", type_=ArrayOf(String)))
)
# Weaker than FOR UPDATE: rows that refer to the account may be inserted meanwhile.
_LOCK_TENANTS, _LOCK_PLATFORM = (it.with_for_update(key_share=True) for it in (_TENANTS, _PLATFORM))
_VALUES = (
    func.unnest(
        bindparam("ids", type_=ArrayOf(Uuid)),
        bindparam("helds_p", type_=ArrayOf(BalanceType)),
    )
    .table_valued(column("id", Uuid), column("held_p", BalanceType))
    .render_derived()
)
_WRITE = (
    update(Account)
    # Said twice, for the plan: else it may read every account.
    .where(Account.id == _VALUES.c.id, Account.id == any_(bindparam("ids", type_=ArrayOf(Uuid))))
    .values(held_p=_VALUES.c.held_p)
    .execution_options(synchronize_session=False)
)


@dataclass(slots=True)
class Funds:
    """A locked account's sums. `ledger.post` moves the balance; a changed `held_p` is written by
    `write`, in the same transaction and before what it frees is spent."""

    account_id: uuid.UUID
    kind: str
    tenant_id: uuid.UUID | None
    balance_p: int
    granted_p: int
    held_p: int
    credit_limit_p: int

    @property
    def available_p(self) -> int:
        """What may still be spent or held."""
        return self.balance_p + self.credit_limit_p - self.held_p


@dataclass(frozen=True, slots=True)
class LockedFunds:
    """The locked accounts: tenants' by tenant id, the platform's by kind."""

    by_tenant: dict[uuid.UUID, Funds]
    by_kind: dict[str, Funds]


def lock(
    session: Session, *, tenant_ids: Collection[uuid.UUID], platform: Collection[str] = ()
) -> LockedFunds:
    """Lock the tenants' accounts and the named platform accounts until the transaction ends."""
    locked = LockedFunds({}, {})
    if tenant_ids:
        for row in session.execute(_LOCK_TENANTS, {"tenant_ids": list(tenant_ids)}):
            locked.by_tenant[row.tenant_id] = Funds(*row)
    if platform:
        for row in session.execute(_LOCK_PLATFORM, {"platform": list(platform)}):
            locked.by_kind[row.kind] = Funds(*row)
    return locked


def unlocked(session: Session, kind: str) -> Funds:
    """Return a platform account without its lock, for entries alone: they move whatever is there.

    Its sums may be old by the time they are read. Whoever adds the entries locks it until the end
    of the transaction, so nothing may be locked after them.
    """
    return Funds(*session.execute(_PLATFORM, {"platform": [kind]}).one())


def write(session: Session, funds: Iterable[Funds]) -> None:
    """Write the held sums of locked accounts back, in one statement."""
    rows = list(funds)
    session.execute(
        _WRITE,
        {"ids": [row.account_id for row in rows], "helds_p": [row.held_p for row in rows]},
    )
