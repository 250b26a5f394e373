"""`flashplane projects | members | models`, and keys of limited scope, against an admin API."""

from support.command import Command


def test_a_project_is_made_renamed_archived_and_restored(command: Command) -> None:
    command.ask("projects", "create", command.tenant, "lab")
    assert command.ask("projects", "rename", command.tenant, "lab", "shop")["name"] == "shop"
    archived = command.ask("projects", "archive", command.tenant, "shop")
    assert archived["archived_at"] is not None
    restored = command.ask("projects", "restore", command.tenant, archived["id"])
    assert restored["archived_at"] is None
    listed = command.ask("projects", "list", command.tenant)
    assert [it["name"] for it in listed] == ["default", "shop"]


def test_a_project_that_is_not_there_is_told_in_a_sentence(command: Command) -> None:
    result = command.run("projects", "archive", command.tenant, "nowhere")
    assert result.exit_code == 1
    assert "flashplane projects list" in result.output


def test_people_are_invited_and_removed(command: Command) -> None:
    of_tenant = ("--tenant", command.tenant)
    member = command.ask("members", "invite", "ada@example.com", "owner", *of_tenant)
    changed = command.ask("members", "role", member["id"], "viewer", *of_tenant)
    assert changed["role"] == "viewer"
    assert command.ask("members", "list", *of_tenant) == [changed]
    command.ask("members", "remove", member["id"], *of_tenant)
    assert command.ask("members", "list", *of_tenant) == []


def test_without_a_tenant_it_is_the_staff(command: Command) -> None:
    invited = command.ask("members", "invite", "sue@example.com", "billing")
    assert command.ask("members", "list") == [invited]
    assert command.run("members", "invite", "bob@example.com", "owner").exit_code == 1


def test_models_get_other_names_descriptions_and_are_hidden(command: Command) -> None:
    command.ask("models", "alias", "deepseek-flash", "deepseek-v4-flash")
    command.ask("models", "describe", "deepseek-v4-flash", "fast")
    assert command.ask("models", "hide", "old")["visible"] is False
    command.ask("models", "remove", "old")
    listed = command.run("models", "list").output
    assert "deepseek-flash" in listed
    assert "fast" in listed


def test_a_key_may_be_of_less_than_everything(command: Command) -> None:
    made = command.ask("keys", "create", command.tenant, "--scope", "inference", "--scope", "read")
    assert made["scopes"] == ["inference", "read"]
