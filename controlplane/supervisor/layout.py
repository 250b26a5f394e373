"""What lies where in the data folder, and who owns it. Called by `up`, `status` and `down`."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlplane.supervisor.built_in import BuiltInModel
from controlplane.supervisor.errors import AlreadyRunning
from controlplane.supervisor.sockets import remove_short_folder, socket_folder


@dataclass(frozen=True)
class Layout:
    """The paths below one data folder, `.flashplane` unless set otherwise."""

    root: Path

    @property
    def up_file(self) -> Path:
        """What scripts read: URLs, keys and pids of the running product."""
        return self.root / "up.json"

    @property
    def secrets_file(self) -> Path:
        """Pepper and the first keys."""
        return self.root / "secrets"

    @property
    def process_file(self) -> Path:
        """Every process that was started and has not been seen to end."""
        return self.root / "processes.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor that owns the folder; holds its pid."""
        return self.root / "lock"

    @property
    def supervisor_log(self) -> Path:
        """What a supervisor in the background says."""
        return self.root / "supervisor.out"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL's files."""
        return self.root / "postgres"

    @property
    def nobody(self) -> Path:
        """Points to nobody's folder, where PostgreSQL runs if it cannot run here."""
        return self.root / "nobody"

    @property
    def valkey(self) -> Path:
        """The embedded Valkey's files."""
        return self.root / "valkey"

    @property
    def journal(self) -> Path:
        """The gateway's journal."""
        return self.root / "journal"

    @property
    def worker_journal(self) -> Path:
        """The worker's usage journal; SQLite's own file, with suffixes of its own."""
        return self.root / "worker" / "usage.db"

    @property
    def beat_schedule(self) -> Path:
        """When the jobs' clock last ticked; Celery's own file, with suffixes of its own."""
        return self.root / "beat" / "schedule"

    @property
    def audit_anchors(self) -> Path:
        """The signed anchors of the audit log, with their key beside them."""
        return self.root / "audit" / "anchors.jsonl"

    @property
    def pods(self) -> Path:
        """What the pods of this machine's cluster have on disk, and the list of their processes."""
        return self.root / "pods"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "log"

    def model(self, model: BuiltInModel) -> Path:
        """Return a built-in model's checkpoint."""
        return self.root / f"{model}-model"

    def model_record(self, model: BuiltInModel) -> Path:
        """Return what tells of a checkpoint's source and files; written when it is whole."""
        return self.root / f"{model}-model.written.json"

    def sockets(self) -> Path:
        """Return the folder of Unix sockets; made when missing."""
        return socket_folder(self.root)

    def tidy(self) -> None:
        """Remove what only a running product needs. Call it as the owner, with nothing running."""
        self.up_file.unlink(missing_ok=True)
        remove_short_folder(self.root)

    def wipe(self) -> None:
        """Remove everything `up` made. Call it as the owner, with nothing running."""
        folders = (self.postgres, self.valkey, self.journal, self.pods, self.logs)
        models = map(self.model, BuiltInModel)
        of_files = (self.worker_journal, self.beat_schedule, self.audit_anchors)
        for folder in (*folders, *models, *(file.parent for file in of_files)):
            if folder.exists():
                shutil.rmtree(folder)
        if self.nobody.is_symlink():
            shutil.rmtree(self.nobody.readlink(), ignore_errors=True)
        self.tidy()
        records = map(self.model_record, BuiltInModel)
        for file in (self.nobody, self.secrets_file, self.process_file, *records):
            file.unlink(missing_ok=True)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder while the context lasts; the kernel ends that with the process.

        Raises:
            AlreadyRunning: another supervisor owns it.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"Flashplane is already running in {self.root}, pid {lock.read().strip()}: see "
                    "`flashplane status`, or end it with `flashplane down`."
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield
