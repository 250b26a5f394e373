"""One container as a local process: started, probed, restarted with patience, ended.

One thread owns it, `pod`'s, and ticks it.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.cluster import Object
from controlplane.crd.base import timestamp
from controlplane.local.launching import Command, NotConfigured
from controlplane.local.probing import Probe, answer
from controlplane.local.running import Processes
from controlplane.processes.backoff import deaths_in_a_row, restart_delay_seconds

RETRY_SECONDS = 0.5
MESSAGE_BYTES = 4096
TERMINATION_LOG = "/dev/termination-log"
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@dataclass(frozen=True)
class Surroundings:
    """What a container's pod gives it.

    Attributes:
        key: its process's name in the list of processes.
        command: what to run; asked anew for every start.
        is_missing: whether an image cannot be pulled.
        log_file: what it prints.
        message_file: what stands for its `terminationMessagePath`.
        restart_policy: Always, OnFailure or Never.
        grace_seconds: from SIGTERM to SIGKILL when it fails its liveness probe.
    """

    key: str
    command: Callable[[], Command]
    is_missing: Callable[[str], bool]
    processes: Processes
    log_file: Path
    message_file: Path
    address: str
    restart_policy: str
    grace_seconds: float


class Container:
    """A container of a pod that runs here.

    Attributes:
        state: waiting, running or terminated, as in a pod's status.
        last_state: how its run before ended.
    """

    def __init__(self, spec: Object, given: Surroundings, *, restarts: int = 0) -> None:
        self.spec = spec
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Object = {}
        self.restarts = restarts
        self._given = given
        self._process: subprocess.Popen[bytes] | None = None
        self._probes: dict[str, Probe] = {}
        self._started_at = 0.0
        self._start_at = 0.0
        self._deaths = 0
        self._kill_at: float | None = None
        self._ends_for_good = False

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended and is not started again."""
        return "terminated" in self.state

    @property
    def exit_code(self) -> int | None:
        """What it ended with, once it is over."""
        return self.state["terminated"]["exitCode"] if self.is_over else None

    @property
    def has_started(self) -> bool:
        """Whether it runs and its start-up probe, if any, has passed."""
        return self.is_running and self._passes("startupProbe", absent=True)

    @property
    def is_ready(self) -> bool:
        """Whether it has started and its readiness probe, if any, passes."""
        return self.has_started and self._passes("readinessProbe", absent=True)

    def status(self) -> Object:
        """Return its element of `containerStatuses`."""
        return {
            "name": self.spec["name"],
            "image": self.spec.get("image", ""),
            "imageID": "",
            "ready": self.is_ready,
            "started": self.has_started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }

    def tick(self, now: float) -> None:
        """Notice what happened and do what is due."""
        if self.is_over:
            return
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
            return
        code = self._process.poll()
        if code is not None:
            self._bury(code, now)
        elif self._kill_at is not None:
            if now >= self._kill_at:
                self._signal(signal.SIGKILL)
        else:
            self._ask(now)

    def end(self, kill_at: float) -> None:
        """Ask it to end, for good; `tick` kills it at `kill_at`. Call it again to hurry it."""
        if self._process is None:
            if not self.is_over:
                self.state = {"terminated": {"exitCode": 0, "reason": "NeverStarted"}}
            return
        if self._kill_at is None:
            self._signal(signal.SIGTERM)
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
        self._ends_for_good = True

    def _start(self, now: float) -> None:
        image = self.spec.get("image", "")
        if self._given.is_missing(image):
            again = self.state.get("waiting", {}).get("reason") == "ErrImagePull"
            reason = "ImagePullBackOff" if again else "ErrImagePull"
            self._wait(now, reason, f"image {image!r} cannot be pulled")
            return
        try:
            command = self._given.command()
        except NotConfigured as error:
            self._wait(now, "CreateContainerConfigError", str(error))
            return
        self._given.message_file.unlink(missing_ok=True)
        try:
            self._process = self._given.processes.start(
                self._given.key, command, self._given.log_file
            )
        except OSError as error:
            self._wait(now, "RunContainerError", str(error))
            return
        if self.last_state:
            self.restarts += 1
        self._started_at = now
        self.state = {"running": {"startedAt": timestamp(now)}}
        self._probes = {
            word: Probe(spec, now + spec.get("initialDelaySeconds", 0))
            for word in _PROBES
            if (spec := self.spec.get(word)) is not None
        }

    def _wait(self, now: float, reason: str, message: str) -> None:
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._start_at = now + RETRY_SECONDS

    def _bury(self, code: int, now: float) -> None:
        assert self._process is not None
        self._given.processes.ended(self._given.key, self._process)
        self._process = None
        self._probes = {}
        ended: Object = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Error" if code else "Completed",
            "startedAt": timestamp(self._started_at),
            "finishedAt": timestamp(now),
        }
        if code < 0:
            ended["signal"] = -code
        message = self._message(failed=code != 0)
        if message:
            ended["message"] = message
        policy = self._given.restart_policy
        if self._ends_for_good or policy == "Never" or (policy == "OnFailure" and not code):
            self.state = {"terminated": ended}
            return
        self._kill_at = None
        self._deaths = deaths_in_a_row(self._deaths, now - self._started_at)
        delay_seconds = restart_delay_seconds(self._deaths)
        self._start_at = now + delay_seconds
        self.last_state = {"terminated": ended}
        told = f"back-off {delay_seconds:g}s restarting failed container"
        self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": told}}

    def _message(self, *, failed: bool) -> str:
        """Its last words: the file they are meant for, or what it printed last if it failed."""
        with suppress(FileNotFoundError):
            return self._given.message_file.read_text(errors="replace")[:MESSAGE_BYTES]
        if failed and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            with suppress(FileNotFoundError):
                return self._given.log_file.read_text(errors="replace")[-MESSAGE_BYTES // 2 :]
        return ""

    def _ask(self, now: float) -> None:
        """Ask the probes that are due; nothing else is asked before the start-up probe passes."""
        startup = self._probes.get("startupProbe")
        if startup is not None and startup.passes is None:
            self._ask_one(startup, now)
            due = ["startupProbe"]
        else:
            due = ["livenessProbe", "readinessProbe"]
            for word in due:
                if word in self._probes:
                    self._ask_one(self._probes[word], now)
        for word in due:
            if word != "readinessProbe" and not self._passes(word, absent=True, unknown=True):
                self._signal(signal.SIGTERM)
                self._kill_at = now + self._given.grace_seconds

    def _ask_one(self, probe: Probe, now: float) -> None:
        if now >= probe.due_at:
            probe.tell(answer(probe.spec, self.spec, self._given.address, self._execute), now)

    def _execute(self, words: list[str]) -> bool:
        environment = self._given.command().environment
        ended = subprocess.run(
            words, env=environment, capture_output=True, timeout=1.0, check=False
        )
        return ended.returncode == 0

    def _passes(self, word: str, *, absent: bool, unknown: bool = False) -> bool:
        probe = self._probes.get(word)
        if probe is None:
            return absent
        return unknown if probe.passes is None else probe.passes

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
