"""Which of several operators acts: the holder of a Lease. Run by `main`.

Clocks of machines are not compared: a lease has run out when this process has seen it unchanged for
as long as it lasts. The holder counts its own time from before each renewal it sent and stops
acting a third of the lease earlier than anybody may take over, whatever its requests do; so two
never act at once, though one of them be cut off or frozen. Whoever loses the lead ends.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.cluster import (
    LEASES,
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    NotFound,
    Object,
)
from controlplane.operator.runtime.metrics import LEADING, LEASE_TRANSITIONS

ACTING_SHARE = 2 / 3  # of the lease: how long after a renewal the holder still acts
RENEWALS = 5  # tries a lease
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a Lease says. `version` changes with every renewal."""

    holder: str
    lease_seconds: float
    transitions: int
    version: str

    @classmethod
    def of(cls, body: Object) -> "Record":
        """Read a Lease; what is missing was never held."""
        spec = body.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            lease_seconds=float(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
            version=body["metadata"]["resourceVersion"],
        )

    def may_be_taken(self, identity: str, unchanged_seconds: float) -> bool:
        """Return whether `identity` may hold it next, having seen it unchanged for so long."""
        return self.holder in ("", identity) or unchanged_seconds > self.lease_seconds


class Elector:
    """Takes a Lease when it may and renews it until it ends; a lead that was lost stays lost."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_seconds: float = 15.0,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """Prepare.

        Args:
            lease_seconds: how long others wait for a silent holder; whole seconds on the wire.
            clock: seconds that go on while the machine sleeps.
        """
        self.transitions = 0  # of the lease we hold: a number no other holder has
        self.lost = threading.Event()
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease_seconds = max(1, round(lease_seconds))
        self._clock = clock
        self._seen: Record | None = None
        self._seen_at = 0.0
        self._acting_until: float | None = None  # None: never led
        self._leads = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to try."""
        self._thread.start()

    def wait_for_lead(self, timeout_seconds: float) -> bool:
        """Wait until this process has taken the lease; return whether it has."""
        return self._leads.wait(timeout_seconds)

    def is_leading(self) -> bool:
        """Return whether this process may act now. Once it was and is not, `lost` is set."""
        if self._acting_until is None or self.lost.is_set():
            return False
        if self._clock() >= self._acting_until:
            self._lose("not renewed in time")
            return False
        return True

    def stop(self) -> None:
        """End; a lease that is held is given up, so that another takes over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        if self.is_leading() and self._seen is not None:
            self._acting_until = None
            LEADING.set(0)
            try:
                self._write(self._seen, holder="")
            except ClusterError as error:
                _log.info("lease_not_released", extra={"reason": type(error).__name__})

    def step(self) -> None:
        """Look at the lease once, and take or renew it if that is right.

        Raises:
            ClusterError: the API server did not answer; the next step tries again.
        """
        sent_at = self._clock()
        if self._acting_until is not None and self._seen is not None:
            try:
                self._held(self._write(self._seen), sent_at)
                return
            except (Conflict, NotFound):
                pass  # somebody has touched it: see who holds it now
        record = self._look()
        if record is None:
            return
        if record != self._seen:
            self._seen, self._seen_at = record, sent_at
        if not record.may_be_taken(self._identity, sent_at - self._seen_at):
            if self._acting_until is not None:
                self._lose(f"held by {record.holder}")
            return
        try:
            self._held(self._write(record), sent_at)
        except Conflict:
            return  # another was quicker, or it was renewed: the next step sees

    def _run(self) -> None:
        while not self._stop.is_set() and not self.lost.is_set():
            try:
                self.step()
            except ClusterError as error:
                _log.warning("lease_unknown", extra={"reason": type(error).__name__})
            self.is_leading()
            self._stop.wait(self._lease_seconds / RENEWALS)

    def _look(self) -> Record | None:
        try:
            return Record.of(self._cluster.get(LEASES, self._name, namespace=self._namespace))
        except NotFound:
            body = {"metadata": {"namespace": self._namespace, "name": self._name}, "spec": {}}
            try:
                return Record.of(self._cluster.create(LEASES, body))
            except AlreadyExists:
                return None

    def _write(self, record: Record, holder: str | None = None) -> Record:
        holder = self._identity if holder is None else holder
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Object = {"renewTime": now, "holderIdentity": holder}
        spec["leaseDurationSeconds"] = self._lease_seconds if holder else 1
        if record.holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": record.transitions + 1}
        change = {"metadata": {"resourceVersion": record.version}, "spec": spec}
        return Record.of(self._cluster.patch(LEASES, self._name, change, namespace=self._namespace))

    def _held(self, record: Record, sent_at: float) -> None:
        self._seen, self._seen_at = record, sent_at
        self._acting_until = sent_at + self._lease_seconds * ACTING_SHARE
        self.transitions = record.transitions
        LEASE_TRANSITIONS.set(record.transitions)
        if not self._leads.is_set():
            _log.info("lease_taken", extra={"reason": self._identity})
            LEADING.set(1)
            self._leads.set()

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            _log.error("lease_lost", extra={"reason": why})
            LEADING.set(0)
            self.lost.set()
