"""Every setting of the control plane, read once in entry points and passed down.

The environment is read here and nowhere else. A name is `FLASHPLANE_` plus the field's name in
capitals, but for `DATABASE_URL`, `REDIS_URL` and `KUBECONFIG`, which keep the names every host
gives them.
`flashplane config` prints this table.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of gateway, REST API, jobs and command line."""

    model_config = SettingsConfigDict(env_prefix="FLASHPLANE_", extra="ignore", frozen=True)

    database_url: str = Field(
        default="",
        validation_alias=AliasChoices("DATABASE_URL", "FLASHPLANE_DATABASE_URL"),
        description="PostgreSQL, as postgresql://user@host/db; empty: `flashplane up` embeds one",
    )
    redis_url: str = Field(
        default="",
        validation_alias=AliasChoices("REDIS_URL", "FLASHPLANE_REDIS_URL"),
        description="Redis or Valkey, as redis:// or unix://; empty: `flashplane up` embeds one",
    )
    key_pepper: SecretStr = Field(
        default=SecretStr(""),
        description="secret that API keys are hashed with and cache salts derive from; keep it",
    )
    key_pepper_previous: SecretStr = Field(
        default=SecretStr(""),
        description="the pepper before, while keys that it hashed are in use: `flashplane keys "
        "peppers`",
    )
    audit_anchor_file: Path | None = Field(
        default=None,
        description="file outside the database that vouches for the audit log hourly; none: no "
        "anchors",
    )
    audit_key_file: Path | None = Field(
        default=None,
        description="Ed25519 key that signs the anchors, made when missing; none: beside them",
    )
    webhooks_to_loopback: bool = Field(
        default=False,
        description="whether webhooks may go to this machine, without TLS too: for trying them out",
    )
    data_dir: Path = Field(
        default=Path(".flashplane"), description="folder in which `flashplane up` keeps everything"
    )
    admin_url: str = Field(
        default="", description="admin API the command line talks to; empty: what `up` started"
    )
    admin_key: SecretStr = Field(
        default=SecretStr(""), description="key for the admin API; empty: what `up` made"
    )
    oidc_issuer: str = Field(
        default="",
        description="identity provider of people, an https address as in its tokens' iss; empty:"
        " machines alone get in",
    )
    oidc_client_id: str = Field(
        default="", description="what the provider's tokens must be for: their aud, and azp if told"
    )
    gateway_name: str = Field(
        default="local", description="this gateway's lasting name; owns one journal folder"
    )
    journal_dir: Path = Field(
        default=Path(".flashplane/journal"), description="folder of the gateway's durable journal"
    )
    journal_min_free_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        description="admission stops when the journal's disk has less free",
    )
    journal_keep_hours: float = Field(
        default=72.0,
        ge=0,
        description="how long journals are kept once all in them is in the database, for"
        " `flashplane restore`; on half of what is free at most; 0: not at all",
    )
    log_dir: Path | None = Field(
        default=None, description="folder of rotated JSON logs; none: stderr"
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    engine_token: SecretStr = Field(
        default=SecretStr(""),
        description="secret the gateway shows to engines, which started with the same; empty: none",
    )
    router_policy: str = Field(default="least_inflight", description="how a replica is chosen")
    upstream_first_byte_timeout_seconds: float = Field(
        default=600.0, gt=0, description="how long a replica may take to its first byte"
    )
    upstream_idle_timeout_seconds: float = Field(
        default=120.0, gt=0, description="how long a running stream may be silent"
    )
    resume_patience_seconds: float = Field(
        default=60.0,
        ge=0,
        description="how long a request whose replica was lost waits for one that goes on",
    )
    hold_max_requests: int = Field(
        default=256,
        ge=0,
        description="requests of one model that may wait for its first replica to start",
    )
    hold_silence_seconds: float = Field(
        default=5.0,
        ge=0,
        description="how long a held stream can still end with an error status; then keep-alives",
    )
    hold_silence_whole_seconds: float = Field(
        default=30.0, ge=0, description="the same for a held request that does not stream"
    )
    max_body_bytes: int = Field(
        default=8 * 2**20, gt=0, description="largest request body accepted"
    )
    database_pool_size: int = Field(default=5, gt=0, description="connections kept per process")
    database_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        description="how long a request at the gateway waits for PostgreSQL before it gets a 503",
    )
    shutdown_grace_seconds: float = Field(
        default=10.0, ge=0, description="how long running streams may finish after SIGTERM"
    )
    default_weights: dict[str, Any] = Field(
        default={"hub": {"repo": "deepseek-ai/DeepSeek-V4-Flash"}},
        description="weights of deployments that name none, as JSON of a deployment's weights",
    )
    invoice_series: str = Field(
        default="FP",
        pattern=r"^[A-Z0-9]{1,12}$",
        description="what invoice numbers begin with, as FP-2026-000001; a new one counts from 1",
    )
    invoice_grace_hours: float = Field(
        default=24.0,
        ge=0,
        le=24 * 20,
        description="how long after a month its late usage still joins its invoice",
    )
    invoice_payment_days: int = Field(
        default=14, ge=0, le=365, description="days until an invoice is due; tenants may differ"
    )
    seller_name: str = Field(default="Flashplane", description="who sells, on invoices")
    seller_address: str = Field(
        default="", description=r"the seller's address on invoices; lines end with a newline or \n"
    )
    seller_tax_id: str = Field(default="", description="the seller's tax number on invoices")
    payment_webhook_secrets: tuple[SecretStr, ...] = Field(
        default=(),
        description="secrets that payment events are signed with, as JSON: two while one is"
        " replaced; none: no event is taken",
    )
    usage_retention_days: int = Field(
        default=400,
        ge=32,
        description="how long single requests and sums by the minute are kept; sums by the hour,"
        " invoices and the ledger stay for ever",
    )
    jobs_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of the jobs' metrics; 0: none"
    )
    spot_credit_minutes: int = Field(
        default=60,
        ge=0,
        le=24 * 60,
        description="spot replicas that are interrupted within so many minutes cost nothing",
    )
    gpu_hold_seconds: int = Field(
        default=180,
        ge=120,
        le=3600,
        description="replicas hold the money of so much time ahead; with less than a minute of it"
        " they are stopped",
    )
    keep_volumes_hours: int = Field(
        default=72,
        ge=24,
        description="how long volumes outlive their tenant's money; announced a day before the end",
    )
    project_deployments: bool = Field(
        default=False,
        description="whether the jobs write deployments to the Kubernetes cluster; `up` does its "
        "own",
    )
    kubeconfig: str = Field(
        default="",
        validation_alias=AliasChoices("KUBECONFIG", "FLASHPLANE_KUBECONFIG"),
        description="credentials of the Kubernetes cluster; empty: the pod's ServiceAccount",
    )
    operator_namespace: str = Field(
        default="flashplane",
        description="the release's namespace: catalogue, serverless pools, the operator's lease",
    )
    operator_identity: str = Field(
        default="", description="this operator's name in its lease; empty: host name and chance"
    )
    operator_workers: int = Field(
        default=4, gt=0, description="threads of each controller of the operator"
    )
    operator_lease_seconds: float = Field(
        default=15.0,
        ge=1,
        description="how long a silent operator keeps the lead; the next one waits that long",
    )
    operator_account: str = Field(
        default="flashplane-operator", description="the operator's ServiceAccount"
    )
    tenant_role: str = Field(
        default="flashplane-tenant",
        description="ClusterRole that the operator binds to itself in tenants' namespaces; the SSH"
        " gateway's there is called the same with -ssh",
    )
    ssh_account: str = Field(
        default="", description="the SSH gateway's ServiceAccount; empty: there is none"
    )
    ssh_host: str = Field(default="127.0.0.1", description="address the SSH gateway listens on")
    ssh_port: int = Field(
        default=2222, ge=0, le=65535, description="port the SSH gateway listens on"
    )
    ssh_host_key: Path = Field(
        default=Path(".flashplane/ssh_host_ed25519_key"),
        description="the SSH gateway's private key; made when missing",
    )
    ssh_public_host: str = Field(
        default="", description="where customers reach the SSH gateway; told in endpoints' status"
    )
    ssh_fingerprint: str = Field(
        default="", description="SHA256 fingerprint of the SSH gateway's key, told the same way"
    )
    engine_images: dict[str, str] = Field(
        default={}, description="container images of engines by name, as JSON"
    )
    tools_image: str = Field(
        default="", description="container image with `flashplane scrub`, for bare GPUs' proofs"
    )
    image_pull_secrets: tuple[str, ...] = Field(
        default=(), description="Secrets for private registries, named by pods, as JSON"
    )
    weights_cidrs: tuple[str, ...] = Field(
        default=(), description="networks in the cluster that weights may come from, as JSON"
    )
    bare_domain: str = Field(
        default="", description="domain of bare endpoints' ports; empty: SSH alone"
    )
    bare_ingress_class: str = Field(
        default="", description="IngressClass of bare endpoints' ports; empty: the default one"
    )
    bare_ingress_namespace: str = Field(
        default="", description="where the ingress controller runs, which alone reaches them"
    )
    bare_tls_secret: str = Field(
        default="", description="Secret with a certificate of every name below bare_domain"
    )
    weight_cache_path: str = Field(
        default="",
        description="folder on nodes that keeps weights of serverless pools; empty: none",
    )
    operator_host: str = Field(
        default="127.0.0.1", description="address of the operator's health and metrics"
    )
    operator_port: int = Field(
        default=9090, ge=0, le=65535, description="port of the operator's health and metrics"
    )

    def peppers(self) -> tuple[bytes, ...]:
        """Return the pepper, and the one before while it is still good, newest first."""
        told = (self.key_pepper, self.key_pepper_previous)
        return tuple(pepper.get_secret_value().encode() for pepper in told if pepper)


# What programs need to run at all; everything else may be a secret.
_OF_PROGRAMS = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")


def program_environment() -> dict[str, str]:
    """Return what of this process's environment programs of others may see."""
    return {name: os.environ[name] for name in _OF_PROGRAMS if name in os.environ}


def child_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `overrides`: what a child of `up` is given."""
    return {**os.environ, **overrides}
