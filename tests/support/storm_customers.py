"""Customers of a storm: rich, about to run dry, on credit, on a budget; and what they do."""

import asyncio
import random
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

import httpx
from sqlalchemy.orm import Session, sessionmaker
from support.shop import PEPPER
from support.traffic import Outcome, chat, chat_body

from controlplane.accounts import corrections, ledger, terms
from controlplane.accounts.opening import create_tenant
from controlplane.billing import budget_terms
from controlplane.tenants import keys

# A request of the storm costs about a thousandth of a cent.
RICH_P, DRY_P, GRANT_P, CREDIT_P, BUDGET_P = 10**12, 2 * 10**8, 10**8, 2 * 10**8, 3 * 10**8
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
CLIENTS = 8


def open_accounts(sessions: sessionmaker[Session]) -> dict[str, str]:
    """Make the customers; return a key of each."""
    tokens = {}
    with sessions.begin() as session:
        for name, paid_p in {"rich": RICH_P, "dry": DRY_P, "credit": 0, "budget": RICH_P}.items():
            tenant = create_tenant(session, name=name)
            key, tokens[name] = keys.issue(session, PEPPER, tenant_id=tenant.id, name=name)
            told = {"tenant_id": tenant.id, "reason": "test", "author": "test"}
            if paid_p:
                ledger.top_up(session, amount_p=paid_p, **told)
            if name == "dry":
                corrections.grant(session, amount_p=GRANT_P, **told)
            if name == "credit":
                terms.set_terms(
                    session, tenant_id=tenant.id, terms="postpaid", credit_limit_p=CREDIT_P
                )
            if name == "budget":
                budget_terms.create(
                    session,
                    tenant_id=tenant.id,
                    period="total",
                    limit_p=BUDGET_P,
                    api_key_id=key.id,
                )
    return tokens


async def crowd(
    urls: list[str], tokens: Mapping[str, str], stop: asyncio.Event, *, seed: int
) -> list[tuple[str, Outcome]]:
    """Send requests from many clients until told to stop; return who saw what."""
    clients = (_client(urls, tokens, stop, random.Random(f"{seed}-{n}")) for n in range(CLIENTS))
    return [seen for it in await asyncio.gather(*clients) for seen in it]


async def _client(
    urls: list[str], tokens: Mapping[str, str], stop: asyncio.Event, rng: random.Random
) -> list[tuple[str, Outcome]]:
    """One request after another; a third are left in the middle, by a reset."""
    seen = []
    # Closing such a connection resets it.
    transport = httpx.AsyncHTTPTransport(socket_options=[RESET])
    async with httpx.AsyncClient(transport=transport, timeout=60) as http:
        while not stop.is_set():
            who = rng.choice(sorted(tokens))
            http.headers["authorization"] = f"Bearer {tokens[who]}"
            stream = rng.random() < 0.7
            leaves = rng.random() < 0.33
            call = chat(
                http,
                f"{rng.choice(urls)}/v1/chat/completions",
                chat_body(rng, stream=stream, max_tokens=rng.randint(4, 40)),
                hang_up_after=rng.randint(1, 12) if leaves and stream else None,
            )
            if leaves and not stream:
                with suppress(TimeoutError):
                    seen.append((who, await asyncio.wait_for(call, rng.random())))
            else:
                seen.append((who, await call))
            if seen and seen[-1][1].status != 200:
                await asyncio.sleep(0.1)  # refused, or nobody there: do not spin
    return seen
