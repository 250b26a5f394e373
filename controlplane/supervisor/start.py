"""The steps of a start, in order; called by `up`. Each can be repeated after a crash in it."""

import json
import os
from dataclasses import dataclass

import httpx
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from controlplane import schema
from controlplane.db import open_engine, session_factory
from controlplane.pricing.drafts import SERVERLESS
from controlplane.settings import Settings, child_environment
from controlplane.supervisor import checkpoint
from controlplane.supervisor.announcement import Announcement
from controlplane.supervisor.built_in import SERVING, BuiltInModel
from controlplane.supervisor.demo import ensure_demo
from controlplane.supervisor.errors import SupervisorError
from controlplane.supervisor.given import check_database_url, check_redis_url
from controlplane.supervisor.heartbeat import Heartbeat
from controlplane.supervisor.layout import Layout
from controlplane.supervisor.local_cluster import TINY_CLAIM
from controlplane.supervisor.postgres import Postgres
from controlplane.supervisor.progress import Progress
from controlplane.supervisor.proof import Prover
from controlplane.supervisor.secret_file import Secrets, ensure_pepper
from controlplane.supervisor.services import (
    MODEL,
    READY_SECONDS,
    Addresses,
    control_plane_services,
    operator_service,
    postgres_service,
    valkey_service,
    worker_service,
)
from controlplane.supervisor.tree import Tree
from controlplane.supervisor.unprivileged import needs_nobody, nobodys_folder, nobodys_programs
from controlplane.supervisor.valkey import Valkey


@dataclass
class Start:
    """One start of the product; holds what the steps hand to each other."""

    settings: Settings
    layout: Layout
    addresses: Addresses
    model: BuiltInModel
    max_model_len: int | None
    tree: Tree
    progress: Progress
    database_url: str = ""
    redis_url: str = ""
    embedded: tuple[str, ...] = ()
    heartbeat: Heartbeat | None = None

    def run(self) -> Announcement:
        """Start everything and return when a completion has been served and billed.

        Raises:
            StartupError: a sentence that names the fix.
        """
        self._databases()
        secrets = self._data()
        self._engine()
        self._control_plane(secrets)
        announcement = self._announcement(secrets)
        self._prove(secrets)
        return announcement

    def _databases(self) -> None:
        if self.settings.database_url:
            check_database_url(self.settings.database_url)
        if self.settings.redis_url:
            check_redis_url(self.settings.redis_url)
        self.database_url = self.settings.database_url or self._embedded_postgres()
        self.redis_url = self.settings.redis_url or self._embedded_valkey()

    def _embedded_postgres(self) -> str:
        with self.progress.step("PostgreSQL"):
            server = self._postgres()
            server.prepare()
            self.tree.start(postgres_service(server))
            self.tree.wait_ready(["postgres"], READY_SECONDS)
            server.ensure_database()
        self.embedded += ("postgres",)
        return server.url()

    def _postgres(self) -> Postgres:
        if not needs_nobody():
            return Postgres(self.layout.postgres, self.layout.sockets())
        folder = nobodys_folder(self.layout.nobody)
        return Postgres(folder / "data", folder, programs=nobodys_programs(folder))

    def _embedded_valkey(self) -> str:
        server = Valkey(self.layout.valkey, self.layout.sockets())
        with self.progress.step("Valkey"):
            server.prepare()
            self.tree.start(valkey_service(server))
            self.tree.wait_ready(["valkey"], READY_SECONDS)
        self.embedded += ("valkey",)
        return server.url

    def _data(self) -> Secrets:
        """Migrate, and make the demo tenant when there is none."""
        engine = open_engine(self.database_url, pool_size=1)
        configured_pepper = self.settings.key_pepper.get_secret_value()
        try:
            with self.progress.step("Database schema"):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                schema.upgrade(self.database_url)
            with self.progress.step("Demo tenant"):
                with session_factory(engine).begin() as session:
                    secrets = ensure_pepper(session, self.layout.secrets_file, configured_pepper)
                    secrets = ensure_demo(
                        session,
                        secrets,
                        self.progress.say,
                        previous=self.settings.key_pepper_previous.get_secret_value().encode(),
                    )
                secrets.save(self.layout.secrets_file)
        except OperationalError as error:
            raise SupervisorError(
                f"The database of DATABASE_URL does not answer ({_first_line(error.orig)}): "
                "start it, or unset DATABASE_URL to use an embedded one."
            ) from None
        finally:
            engine.dispose()
        return secrets

    def _engine(self) -> None:
        """Start the worker; it loads its model while the control plane starts."""
        directory = checkpoint.ensure(self.layout, self.model, self.progress)
        serving = SERVING[self.model]
        self.tree.start(
            worker_service(
                directory,
                self.addresses,
                model=MODEL,
                max_model_len=self.max_model_len or serving.context,
                draft_tokens=serving.draft_tokens,
                journal=self.layout.worker_journal,
                log_file=self.layout.logs / "worker.log",
            )
        )

    def _control_plane(self, secrets: Secrets) -> None:
        weights = {"pvc": {"claim": TINY_CLAIM}}
        if "default_weights" in self.settings.model_fields_set:
            weights = self.settings.default_weights
        environment = child_environment(
            {
                "DATABASE_URL": self.database_url,
                "REDIS_URL": self.redis_url,
                "FLASHPLANE_KEY_PEPPER": secrets.key_pepper,
                "FLASHPLANE_JOURNAL_DIR": os.fspath(self.layout.journal),
                "FLASHPLANE_LOG_DIR": os.fspath(self.layout.logs),
                "FLASHPLANE_AUDIT_ANCHOR_FILE": os.fspath(
                    self.settings.audit_anchor_file or self.layout.audit_anchors
                ),
                "FLASHPLANE_DEFAULT_WEIGHTS": json.dumps(weights),
            }
        )
        services = control_plane_services(
            self.addresses,
            environment,
            needs=self.embedded,
            beat_schedule=self.layout.beat_schedule,
            grace_seconds=self.settings.shutdown_grace_seconds,
        )
        operator = operator_service(
            environment,
            needs=self.embedded,
            pods=self.layout.pods,
            model=self.layout.model(self.model),
        )
        with self.progress.step("Gateway, REST API, jobs"):
            for service in (*services, operator):
                self.tree.start(service)
            self.tree.wait_ready([service.name for service in services], READY_SECONDS)
        with self.progress.step("Engine worker, operator"):
            self.tree.wait_ready(["worker", operator.name], READY_SECONDS)
        self.heartbeat = Heartbeat(self.redis_url, self.addresses.worker_url, path=SERVERLESS)
        self.heartbeat.start()

    def _prove(self, secrets: Secrets) -> None:
        with httpx.Client(
            base_url=self.addresses.gateway_url,
            headers={"authorization": f"Bearer {secrets.api_key}"},
            trust_env=False,
        ) as http:
            prover = Prover(http, self.tree.tick, READY_SECONDS)
            with self.progress.step("First completion"):
                request_id = prover.complete(MODEL)
            if request_id is None:
                self.progress.say(
                    "The demo tenant's balance is used up: `flashplane top-up demo 10` adds to it"
                )
                return
            with self.progress.step("Its bill"):
                prover.settled(request_id)

    def _announcement(self, secrets: Secrets) -> Announcement:
        return Announcement(
            model=self.model,
            base_url=self.addresses.gateway_url,
            api_key=secrets.api_key,
            admin_url=self.addresses.admin_url,
            admin_key=secrets.admin_key,
            worker_url=self.addresses.worker_url,
            database_url=self.database_url,
            redis_url=self.redis_url,
        )


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]
