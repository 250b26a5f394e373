"""Manifests as local commands."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.cluster import NotFound, Object, Resource
from controlplane.local.launching import (
    NotConfigured,
    command_of,
    expanded,
    localiser,
)

POD: Object = {
    "metadata": {"name": "a-0", "namespace": "own", "uid": "u", "labels": {"tier/x": "web"}},
    "spec": {"nodeName": "local"},
    "status": {"podIP": "127.64.0.9"},
}


def no_objects(resource: Resource, name: str) -> Object:
    raise NotFound(name)


def command(container: Object, **more: Any) -> Any:
    given: dict[str, Any] = {"folders": {}, "environment": {}, "read": no_objects, **more}
    return command_of({"name": "it", "command": ["true"], **container}, POD, **given)


def test_variables_are_expanded_as_in_a_cluster() -> None:
    variables = {"A": "1", "B": "$(A)"}
    assert expanded("$(A)-$(B)-$(C)", variables) == "1-$(A)-$(C)"
    assert expanded("$$(A) $A $$$$", variables) == "$(A) $A $$"


def test_later_variables_see_earlier_ones() -> None:
    env = [
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(HOST):8000/$(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier/x']"}}},
    ]
    made = command({"env": env, "args": ["$(URL)"]}, environment={"PATH": "/bin", "TIER": "no"})
    assert made.argv == ("true", "http://127.64.0.9:8000/$(LATER)")
    assert made.environment["TIER"] == "web"
    assert made.environment["PATH"] == "/bin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/x", "/disk/1/x"),
        ("--dir=/data", "--dir=/disk/1"),
        ("/data:/data/deep/y", "/disk/1:/disk/2/y"),
        ("/database", "/database"),
        ("/my/data", "/my/data"),
        ("/data.old", "/data.old"),
        ("s3://bucket/data", "s3://bucket/data"),
    ],
)
def test_only_whole_paths_of_mounts_are_replaced(text: str, expected: str) -> None:
    assert localiser({"/data": Path("/disk/1"), "/data/deep/": Path("/disk/2")})(text) == expected


def test_what_replaces_a_path_is_not_replaced_again() -> None:
    assert localiser({"/tmp": Path("/tmp/pods/1"), "/a": Path("/tmp/a")})("/tmp /a") == (
        "/tmp/pods/1 /tmp/a"
    )


def test_what_is_missing_is_named_unless_it_is_optional() -> None:
    reference = {"name": "keys", "key": "token"}
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}}]
    with pytest.raises(NotConfigured, match="keys"):
        command({"env": env})
    reference["optional"] = True  # type: ignore[assignment]
    assert command({"env": env}).environment == {"TOKEN": ""}


def test_an_image_alone_is_not_run() -> None:
    with pytest.raises(NotConfigured, match="needs a command"):
        command({"command": [], "args": ["--port", "1"]})


def test_paths_that_leave_their_volume_are_refused() -> None:
    local = localiser({"/weights": Path("/disk/1")})
    assert local("a/../b") == "a/../b"
    with pytest.raises(NotConfigured, match="leaves its volume"):
        local("/weights/../../etc")


def test_only_listed_programs_are_run() -> None:
    assert command({}, programs={"true"}).argv == ("true",)
    with pytest.raises(NotConfigured, match="true is not run on this machine"):
        command({}, programs={"flashplane-worker"})
