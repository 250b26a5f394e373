"""What models are called: visible names, hidden ones, aliases. Called by REST API and gateway.

A model is for sale when it has a price; that alone makes it visible under its own name. A row here
says more of it, hides it, or makes another name of it. An alias is always told to be one: what is
asked of it is served and billed as the model behind it, and answered in that model's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, NotFound
from controlplane.tenants.models import Model


@dataclass(frozen=True, slots=True)
class Offered:
    """A row as the gateway keeps it in memory."""

    description: str
    visible: bool
    alias_of: str | None
    created_at: datetime


def current(session: Session) -> Mapping[str, Offered]:
    """Return all rows by name."""
    return {
        it.name: Offered(it.description, it.visible, it.alias_of, it.created_at)
        for it in session.scalars(select(Model).order_by(Model.name))
    }


def listing(session: Session, *, after: str | None, limit: int) -> list[Model]:
    """Return rows by name, those after the name `after`."""
    query = select(Model).order_by(Model.name).limit(limit)
    if after is not None:
        query = query.where(Model.name > after)
    return list(session.scalars(query))


def get(session: Session, *, name: str) -> Model:
    """Return a row.

    Raises:
        NotFound: nothing is told of this model.
    """
    row = session.get(Model, name)
    if row is None:
        raise NotFound(f"Nothing is told of the model {name!r}.")
    return row


def put(
    session: Session, *, name: str, description: str, visible: bool, alias_of: str | None
) -> Model:
    """Tell of a model, instead of what was told before.

    Raises:
        Conflict: an alias would lead to an alias.
    """
    # One at a time, so that no two make a chain; whoever reads is not held up.
    session.execute(text("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE"))
    rows = {it.name: it for it in session.scalars(select(Model))}
    if alias_of is not None:
        if alias_of == name or (alias_of in rows and rows[alias_of].alias_of is not None):
            raise Conflict(f"{alias_of!r} is an alias itself.", param="alias_of")
        if any(it.alias_of == name for it in rows.values()):
            raise Conflict(f"{name!r} has aliases; it cannot become one.", param="alias_of")
    row = rows.get(name)
    if row is None:
        row = Model(name=name)
        session.add(row)
    row.description, row.visible, row.alias_of = description, visible, alias_of
    session.flush()
    session.refresh(row)
    return row


def remove(session: Session, *, name: str) -> Model:
    """Tell nothing of a model any more: it is visible while it has a price; an alias is gone.

    Raises:
        NotFound: nothing is told of it.
    """
    row = get(session, name=name)
    session.delete(row)
    session.flush()
    return row
