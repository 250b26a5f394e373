"""`flashplane deployments`: pools, dedicated deployments and bare GPUs.

Each command is one or two calls of the admin API; names of tenants and deployments stand for ids.
"""

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.errors import StartupError
from controlplane.settings import Settings

HELP = """\
Sell the cluster's GPUs on three paths: a serverless pool for everybody, dedicated replicas of one
tenant, bare GPUs that a tenant runs alone.

\b
    flashplane deployments create pool --configuration h200-x4 --set scaling.max=4
    flashplane deployments create bot --tenant acme --configuration h200-x4 --dry-run
    flashplane deployments create bot --tenant acme --configuration h200-x4 --set replicas=2
    flashplane deployments create lab --tenant acme --bare --configuration h100-x1
    flashplane deployments show bot
    flashplane deployments set bot replicas=3 engine.maxModelLen=131072
    flashplane deployments stop bot

A spec's fields: `kubectl explain inferencedeployment.spec`, or `gpuendpoint.spec` with --bare.
"""
COLUMNS = ("name", "path", "tenant_id", "phase", "state", "managed", "model", "stopped_because")
CHANGE_COLUMNS = ("id", "name", "path", "state", "generation")
CONFIGURATION_COLUMNS = ("id", "gpu", "gpus", "nodes", "spot", "usd_per_hour", "free_replicas")
USAGE_COLUMNS = (
    *("replica", "configuration", "spot", "usd_per_hour", "started_at", "proven_until"),
    *("billed_ms", "charge_usd", "waived_usd"),
)

deployments = typer.Typer(cls=Commands, help=HELP, no_args_is_help=True, rich_markup_mode=None)

Named = Annotated[str, typer.Argument(help="A deployment's name or id.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Its tenant: name or id.")]
Settings_ = Annotated[
    list[str],
    typer.Option("--set", help="A field of the spec, such as scaling.max=4. Repeatable."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(deployments, name="deployments")


@deployments.command("create")
def create(
    name: str,
    tenant: Annotated[
        str, typer.Option(help="Whose it is: name or id. None: a serverless pool.")
    ] = "",
    bare: Annotated[bool, typer.Option("--bare", help="Bare GPUs, without an engine.")] = False,
    configuration: Annotated[
        list[str] | None,
        typer.Option(help="GPU configuration, the preferred first. Repeatable."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The spec as YAML or JSON.")
    ] = None,
    fields: Settings_ = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Tell placement, stock, price and time; order nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a pool, or order a deployment for a tenant. One replica unless told otherwise."""
    spec = _read(file)
    if configuration:
        spec["configurations"] = configuration
    spec = _with_fields(spec, fields)
    if not bare and "scaling" not in spec:
        spec.setdefault("replicas", 1)
    path = "bare" if bare else ("dedicated" if tenant else "serverless")
    with AdminClient(Settings()) as client:
        body = {"name": name, "path": path, "spec": spec}
        if tenant:
            body["tenant_id"] = client.tenant_id(tenant)
        answer = client.call(
            "POST",
            "/deployments",
            json=body,
            params={"dry_run": dry_run},
            headers={"idempotency-key": str(uuid.uuid4())},
        )
    if dry_run:
        _print(answer, as_json=as_json)
    else:
        _print_change(answer, as_json=as_json)


@deployments.command("list")
def list_deployments(tenant: OfTenant = "", limit: Limit = 100, as_json: AsJson = False) -> None:
    """List deployments that are not deleted, those that the cluster manages too."""
    with AdminClient(Settings()) as client:
        query = {"tenant_id": client.tenant_id(tenant)} if tenant else {}
        print_rows(client.pages("/deployments", query, limit), COLUMNS, as_json=as_json)


@deployments.command("show")
def show(deployment: Named, tenant: OfTenant = "", as_json: AsJson = False) -> None:
    """Show what is wanted, what the cluster says, and who is responsible for what."""
    with AdminClient(Settings()) as client:
        _print(client.call("GET", _path(client, deployment, tenant)), as_json=as_json)


@deployments.command("set")
def set_fields(
    deployment: Named,
    fields: Annotated[
        list[str] | None,
        typer.Argument(help="Fields of the spec, such as replicas=3; nothing after = removes one."),
    ] = None,
    tenant: OfTenant = "",
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A part of a spec as YAML or JSON."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change parts of a spec. What runs is replaced step by step; no stream is lost.

    For example: flashplane deployments set bot replicas= scaling.min=1 scaling.max=4
    """
    _change(deployment, tenant, _with_fields(_read(file), fields or []), as_json=as_json)


@deployments.command("stop")
def stop(deployment: Named, tenant: OfTenant = "", as_json: AsJson = False) -> None:
    """Give its GPUs back when its requests have finished. Volumes stay."""
    _set_stopped(deployment, tenant, True, as_json=as_json)


@deployments.command("start")
def start(deployment: Named, tenant: OfTenant = "", as_json: AsJson = False) -> None:
    """Start it again, also after its balance was used up and topped up."""
    _set_stopped(deployment, tenant, False, as_json=as_json)


@deployments.command("delete")
def delete(deployment: Named, tenant: OfTenant = "", as_json: AsJson = False) -> None:
    """Delete it when its requests have finished, with its volumes. Its bill stays."""
    with AdminClient(Settings()) as client:
        _print_change(client.call("DELETE", _path(client, deployment, tenant)), as_json=as_json)


@deployments.command("events")
def events(deployment: Named, tenant: OfTenant = "", as_json: AsJson = False) -> None:
    """Tell what happened to it lately, newest first."""
    with AdminClient(Settings()) as client:
        told = client.call("GET", f"{_path(client, deployment, tenant)}/events")["data"]
        print_rows(told, ("at", "event", "reason", "message"), as_json=as_json)


@deployments.command("usage")
def usage(
    deployment: Named, tenant: OfTenant = "", limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List its replicas' proven GPU time and what it cost, newest first."""
    with AdminClient(Settings()) as client:
        rows = client.pages(f"{_path(client, deployment, tenant)}/usage", {}, limit)
        print_rows(rows, USAGE_COLUMNS, as_json=as_json)


@deployments.command("configurations")
def configurations(as_json: AsJson = False) -> None:
    """List the GPU configurations there are, with price and room for replicas now."""
    with AdminClient(Settings()) as client:
        listed = client.call("GET", "/gpu-configurations")["data"]
        print_rows(listed, CONFIGURATION_COLUMNS, as_json=as_json)


def fields_of(assignments: list[str]) -> dict[str, Any]:
    """Return the merge patch of `a.b=value` words; values are JSON where they can be.

    Raises:
        StartupError: a word without `=`.
    """
    patch: dict[str, Any] = {}
    for assignment in assignments:
        path, is_assignment, text = assignment.partition("=")
        if not is_assignment or not path:
            raise StartupError(f"{assignment!r} is no field=value, such as replicas=3.")
        *parents, last = path.split(".")
        target = patch
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise StartupError(f"{assignment!r} contradicts another field.")
        target[last] = _value(text)
    return patch


def _value(text: str) -> Any:
    if not text:
        return None
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except ValueError:
        return text
    return value


def _with_fields(spec: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    return _merged(spec, fields_of(assignments))


def _merged(target: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(target)
    for name, value in change.items():
        before = result.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            value = _merged(before, value)
        result[name] = value
    return result


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        spec = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartupError(f"{file} is not YAML: {error}") from None
    if isinstance(spec, dict) and isinstance(spec.get("spec"), dict):
        spec = spec["spec"]  # a whole object, as kubectl takes it
    if not isinstance(spec, dict):
        raise StartupError(f"{file} holds no spec: write its fields as YAML.")
    return spec


def _path(client: AdminClient, name_or_id: str, tenant: str) -> str:
    try:
        return f"/deployments/{uuid.UUID(name_or_id)}"
    except ValueError:
        pass
    query = {"tenant_id": client.tenant_id(tenant)} if tenant else {}
    found = [
        it for it in client.pages("/deployments", query, limit=10**9) if it["name"] == name_or_id
    ]
    if len(found) == 1:
        return f"/deployments/{found[0]['id']}"
    if found:
        raise StartupError(f"Several tenants have a deployment {name_or_id!r}: say --tenant.")
    raise StartupError(f"There is no deployment {name_or_id!r}: see `flashplane deployments list`.")


def _change(deployment: str, tenant: str, spec: dict[str, Any], *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        path = _path(client, deployment, tenant)
        _print_change(client.call("PATCH", path, json={"spec": spec}), as_json=as_json)


def _set_stopped(deployment: str, tenant: str, stopped: bool, *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        path = _path(client, deployment, tenant)
        is_bare = client.call("GET", path)["path"] == "bare"
        state = {"state": "Stopped" if stopped else "Running"}
        spec = state if is_bare else {"stopped": stopped}
        _print_change(client.call("PATCH", path, json={"spec": spec}), as_json=as_json)


def _print_change(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what was ordered or changed; the rest is for `show`."""
    if as_json:
        print_one(answer, as_json=True)
    else:
        print_one({name: answer[name] for name in CHANGE_COLUMNS}, as_json=False)


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print an answer; what is nested, as YAML below its name."""
    if as_json:
        print_one(answer, as_json=True)
        return
    flat = {name: it for name, it in answer.items() if not isinstance(it, dict | list)}
    print_one(flat, as_json=False)
    nested = {name: it for name, it in answer.items() if name not in flat and it}
    if nested:
        typer.echo(yaml.safe_dump(nested, sort_keys=False, allow_unicode=True).rstrip())
