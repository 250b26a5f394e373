"""`flashplane projects | members | models`: parts of tenants, people, and what models are called.

Each command is one call of the admin API; names of tenants stand for their ids.
"""

import uuid
from typing import Annotated
from urllib.parse import quote

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.errors import StartupError
from controlplane.settings import Settings

PROJECT_COLUMNS = ("name", "id", "created_at", "archived_at")
MEMBER_COLUMNS = ("email", "role", "id", "person_id", "created_at")
MODEL_COLUMNS = ("name", "alias_of", "visible", "description")

Tenant = Annotated[str, typer.Argument(help="A tenant's name or id.")]
Whose = Annotated[str, typer.Option("--tenant", help="Name or id; none: the platform's staff.")]
Project = Annotated[str, typer.Argument(help="A project's name or id.")]
Member = Annotated[uuid.UUID, typer.Argument(help="See `flashplane members list`.")]
Role = Annotated[
    str,
    typer.Argument(help="owner, developer or viewer; of the staff admin, support or billing."),
]

projects = typer.Typer(
    cls=Commands, help="Make, list, archive parts of a tenant.", no_args_is_help=True
)
members = typer.Typer(cls=Commands, help="Invite, list, remove people.", no_args_is_help=True)
models = typer.Typer(
    cls=Commands, help="Describe, hide and give other names to models.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(projects, name="projects")
    app.add_typer(members, name="members")
    app.add_typer(models, name="models")


@projects.command("list")
def list_projects(tenant: Tenant, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List a tenant's projects, archived ones too."""
    with AdminClient(Settings()) as client:
        rows = client.pages(f"/tenants/{client.tenant_id(tenant)}/projects", {}, limit)
        print_rows(rows, PROJECT_COLUMNS, as_json=as_json)


@projects.command("create")
def create_project(tenant: Tenant, name: str, as_json: AsJson = False) -> None:
    """Make a project, with keys of its own: see `flashplane keys create --help`."""
    with AdminClient(Settings()) as client:
        path = f"/tenants/{client.tenant_id(tenant)}/projects"
        print_one(client.call("POST", path, json={"name": name}), as_json=as_json)


@projects.command("rename")
def rename_project(tenant: Tenant, project: Project, name: str, as_json: AsJson = False) -> None:
    """Give a project another name."""
    _change_project(tenant, project, {"name": name}, as_json=as_json)


@projects.command("archive")
def archive_project(tenant: Tenant, project: Project, as_json: AsJson = False) -> None:
    """Make a project's keys open nothing, until it is restored."""
    _change_project(tenant, project, {"archived": True}, as_json=as_json)


@projects.command("restore")
def restore_project(tenant: Tenant, project: Project, as_json: AsJson = False) -> None:
    """Let an archived project's keys in again."""
    _change_project(tenant, project, {"archived": False}, as_json=as_json)


def _change_project(tenant: str, project: str, change: dict[str, object], *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        path = f"/tenants/{client.tenant_id(tenant)}/projects"
        for row in client.pages(path, {}, limit=10**9):
            if project in (row["id"], row["name"]):
                changed = client.call("PATCH", f"{path}/{row['id']}", json=change)
                print_one(changed, as_json=as_json)
                return
    raise StartupError(f"There is no project {project!r}: see `flashplane projects list {tenant}`.")


@members.command("list")
def list_members(tenant: Whose = "", limit: Limit = 100, as_json: AsJson = False) -> None:
    """List people and invitations, which are those without a person."""
    with AdminClient(Settings()) as client:
        rows = client.pages(_people(client, tenant), {}, limit)
        print_rows(rows, MEMBER_COLUMNS, as_json=as_json)


@members.command("invite")
def invite_member(email: str, role: Role, tenant: Whose = "", as_json: AsJson = False) -> None:
    """Let the owner of an email address in, once the identity provider has verified it.

    For example: flashplane members invite ada@example.com owner --tenant acme
    """
    with AdminClient(Settings()) as client:
        body = {"email": email, "role": role}
        print_one(client.call("POST", _people(client, tenant), json=body), as_json=as_json)


@members.command("role")
def change_member(member: Member, role: Role, tenant: Whose = "", as_json: AsJson = False) -> None:
    """Give somebody another role."""
    with AdminClient(Settings()) as client:
        path = f"{_people(client, tenant)}/{member}"
        print_one(client.call("PATCH", path, json={"role": role}), as_json=as_json)


@members.command("remove")
def remove_member(member: Member, tenant: Whose = "", as_json: AsJson = False) -> None:
    """Lock somebody out, or take an invitation back. Keys they made stay: see `flashplane keys`."""
    with AdminClient(Settings()) as client:
        answer = client.call("DELETE", f"{_people(client, tenant)}/{member}")
        print_one(answer, as_json=as_json)


def _people(client: AdminClient, tenant: str) -> str:
    return f"/tenants/{client.tenant_id(tenant)}/members" if tenant else "/staff"


@models.command("list")
def list_models(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List what is told of models. One that has a price is for sale without being listed here."""
    with AdminClient(Settings()) as client:
        print_rows(client.pages("/models", {}, limit), MODEL_COLUMNS, as_json=as_json)


@models.command("alias")
def alias_model(
    name: str,
    model: Annotated[str, typer.Argument(help="Serves and bills what is asked of the name.")],
    description: Annotated[str, typer.Option(help="Shown to customers.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give a model another name, which customers see to be one.

    For example: flashplane models alias deepseek-flash deepseek-v4-flash
    """
    _put_model(name, {"alias_of": model, "description": description}, as_json=as_json)


@models.command("describe")
def describe_model(
    name: str,
    description: Annotated[str, typer.Argument(help="Shown to customers.")],
    as_json: AsJson = False,
) -> None:
    """Tell customers about a model."""
    _put_model(name, {"description": description}, as_json=as_json)


@models.command("hide")
def hide_model(name: str, as_json: AsJson = False) -> None:
    """Make a model answer as if it did not exist; under its other names it goes on."""
    _put_model(name, {"visible": False}, as_json=as_json)


@models.command("remove")
def remove_model(name: str, as_json: AsJson = False) -> None:
    """End an alias; show a model that was hidden; forget its description."""
    with AdminClient(Settings()) as client:
        print_one(client.call("DELETE", f"/models/{quote(name, safe='')}"), as_json=as_json)


def _put_model(name: str, told: dict[str, object], *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        path = f"/models/{quote(name, safe='')}"
        print_one(client.call("PUT", path, json=told), as_json=as_json)
