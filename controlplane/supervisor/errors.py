"""What can keep the process tree from standing; every message is a sentence that names the fix."""

from controlplane.errors import StartupError


class SupervisorError(StartupError):
    """`flashplane up`, `status` or `down` cannot go on. The command line prints it and exits 1."""


class AlreadyRunning(SupervisorError):
    """Another supervisor owns the data folder."""


class PortTaken(SupervisorError):
    """A port the tree needs is in use."""


class ServiceFailed(SupervisorError):
    """A child did not become ready."""
