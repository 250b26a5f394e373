"""The control plane's exception tree; every error a caller can see is one of these.

    ControlPlaneError                  status  type                      code
    ├── InvalidRequest                 400     invalid_request_error     invalid_request (or given)
    │   ├── ContextLengthExceeded      400     invalid_request_error     context_length_exceeded
    │   └── UnprocessableRequest       422     invalid_request_error     invalid_parameter
    │       ├── NotResponsible         422     invalid_request_error     not_responsible
    │       └── IdempotencyKeyReused   422     invalid_request_error     idempotency_key_reused
    ├── AuthenticationFailed           401     authentication_error      invalid_api_key
    ├── Forbidden                      403     permission_error          permission_denied
    ├── InsufficientBalance            402     insufficient_balance      insufficient_balance
    │   └── BudgetExceeded             402     insufficient_balance      budget_exceeded
    ├── NotFound                       404     not_found_error           not_found
    │   └── ModelNotFound              404     invalid_request_error     model_not_found
    ├── MethodNotAllowed               405     invalid_request_error     method_not_allowed
    ├── Conflict                       409     conflict_error            conflict
    │   └── StillRunning               409     conflict_error            still_running, Retry-After
    ├── Gone                           410     not_found_error           expired
    ├── PreconditionFailed             412     precondition_error        precondition_failed
    ├── RequestTooLarge                413     invalid_request_error     request_too_large
    ├── InternalError                  500     server_error              internal_error
    └── Unavailable                    503     server_error              (given), Retry-After

StartupError stands apart: no caller sees it, a process that cannot start prints it.

Shape on the wire (OpenAI's): `{"error": {"message", "type", "param", "code"}}`, all four present.
"""

from typing import ClassVar


class StartupError(Exception):
    """This process cannot start; the message is one sentence that names the fix."""


class ControlPlaneError(Exception):
    """Base of every error the control plane answers with."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def headers(self) -> dict[str, str]:
        """Extra response headers."""
        return {}

    def body(self) -> dict[str, dict[str, object]]:
        """The JSON body of the error response."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(ControlPlaneError):
    """The request cannot be understood: malformed JSON, a missing or contradictory field."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context; the message tells both lengths."""

    default_code = "context_length_exceeded"


class UnprocessableRequest(InvalidRequest):
    """A well-formed field holds a value out of its domain."""

    status = 422
    default_code = "invalid_parameter"


class NotResponsible(UnprocessableRequest):
    """Asks the platform for what the customer owns on this path, or the other way round."""

    default_code = "not_responsible"


class IdempotencyKeyReused(UnprocessableRequest):
    """The Idempotency-Key came before, with another request."""

    default_code = "idempotency_key_reused"


class AuthenticationFailed(ControlPlaneError):
    """No key, an unknown key, a revoked key: one answer for all, so that nothing leaks."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(ControlPlaneError):
    """The caller is known, and may not do this."""

    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class InsufficientBalance(ControlPlaneError):
    """The account cannot cover the request."""

    status = 402
    type = "insufficient_balance"
    default_code = "insufficient_balance"


class BudgetExceeded(InsufficientBalance):
    """The money is there, but a budget that its owner set does not cover the request."""

    default_code = "budget_exceeded"


class NotFound(ControlPlaneError):
    """No such thing, or not the caller's."""

    status = 404
    type = "not_found_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    """The model name is not served here."""

    type = "invalid_request_error"
    default_code = "model_not_found"


class MethodNotAllowed(ControlPlaneError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class Conflict(ControlPlaneError):
    """The thing exists already, or changed meanwhile."""

    status = 409
    type = "conflict_error"
    default_code = "conflict"


class StillRunning(Conflict):
    """The same request is being served now; ask again for its answer."""

    default_code = "still_running"

    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class PreconditionFailed(ControlPlaneError):
    """The thing is not any more what the caller's If-Match says it is."""

    status = 412
    type = "precondition_error"
    default_code = "precondition_failed"


class Gone(ControlPlaneError):
    """The thing was there, and has been dropped as the platform's policy says."""

    status = 410
    type = "not_found_error"
    default_code = "expired"


class RequestTooLarge(ControlPlaneError):
    """The body is larger than the gateway accepts."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class InternalError(ControlPlaneError):
    """A defect of ours."""


class Unavailable(ControlPlaneError):
    """Nothing can serve this now: no ready replica, database down, disk full. Worth a retry."""

    status = 503
    default_code = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 1, **kwargs: str | None) -> None:
        super().__init__(message, **kwargs)
        self.retry_after_seconds = retry_after_seconds

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_seconds)}
