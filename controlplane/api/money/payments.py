"""The route that a payment provider calls. Its signature is all that opens it."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from pydantic import TypeAdapter, ValidationError

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Db, State
from controlplane.api.money.invoice_schemas import PaymentOut
from controlplane.billing.invoices import provider, signatures
from controlplane.billing.invoices.provider import PaymentNews
from controlplane.errors import RequestTooLarge, UnprocessableRequest

router = APIRouter(tags=["payments"], route_class=Contract)

MAX_BODY_BYTES = 64 * 1024
_NEWS: TypeAdapter[provider.TopUpPaid | provider.InvoicePaid] = TypeAdapter(PaymentNews)
_SCHEMA = {"oneOf": [it.model_json_schema() for it in (provider.TopUpPaid, provider.InvoicePaid)]}


async def _raw(request: Request) -> bytes:
    """Return the body as it was sent, which is what was signed."""
    told = request.headers.get("content-length", "")
    # What does not tell its length is bounded by the gateway in front.
    if told.isdigit() and int(told) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"A payment event has at most {MAX_BODY_BYTES} bytes.")
    return await request.body()


@router.post(
    "/webhooks/payments",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _SCHEMA}},
        }
    },
)
def take_payment(
    session: Db,
    state: State,
    body: Annotated[bytes, Depends(_raw)],
    signature: Annotated[
        str,
        Header(
            alias="flashplane-signature",
            description="`t=<seconds>,v1=<hex HMAC-SHA256 of '<seconds>.<body>'>`, at most five"
            " minutes old",
        ),
    ] = "",
) -> PaymentOut:
    """Book money that came in at the payment provider: a top-up, or a payment of an invoice.

    The same event again, at any time, is answered with the same transaction and books nothing.
    """
    signatures.verify(state.payment_secrets, signature, body, now_seconds=time.time())
    try:
        news = _NEWS.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise UnprocessableRequest(message, param=where or None) from None
    return PaymentOut.of(provider.take(session, news, body))
