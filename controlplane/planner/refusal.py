"""What the planner says when something cannot run: a typed refusal, with the reason a status shows.

Refused          reason IMPOSSIBLE_GEOMETRY, DOES_NOT_FIT, UNKNOWN_CONFIGURATION or INVALID_SPEC
└── DoesNotFit   reason DOES_NOT_FIT, with the gibibytes that are missing
"""

from controlplane.crd.conditions import Reason


class Refused(Exception):
    """This cannot run; the message names what is missing and what would do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DoesNotFit(Refused):
    """The weights, or one request of the asked length, exceed a GPU's memory."""

    def __init__(self, message: str, *, missing_gib: float) -> None:
        super().__init__(Reason.DOES_NOT_FIT, message)
        self.missing_gib = missing_gib
