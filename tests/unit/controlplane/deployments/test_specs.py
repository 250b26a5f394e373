"""Specs of orders: merging, responsibility, keys, and being stopped."""

import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.orders import BARE, DEDICATED, PUBLIC_KEY

from controlplane.crd.base import Path
from controlplane.crd.responsibility import RESPONSIBILITY, Layer, Party
from controlplane.deployments import specs
from controlplane.errors import NotResponsible, UnprocessableRequest

TENANT = uuid.uuid4()
WEIGHTS = {"weights": {"pvc": {"claim": "w"}}}

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def parse(path: Path, spec: dict[str, Any], *, by_tenant: bool = True) -> specs.Spec:
    tenant_id = None if path is Path.SERVERLESS else TENANT
    return specs.parse(path, spec, tenant_id=tenant_id, by_tenant=by_tenant)


@given(values, values)
def test_a_merge_patch_leaves_no_null_and_can_be_repeated(target: Any, change: Any) -> None:
    once = specs.merged(target, change)
    assert specs.merged(once, change) == once
    if isinstance(change, dict):
        assert all(name not in once for name, value in change.items() if value is None)


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [  # from RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_that_of_the_standard(target: Any, change: Any, result: Any) -> None:
    assert specs.merged(target, change) == result


@given(values)
def test_whatever_is_in_a_spec_it_is_taken_or_refused_in_words(value: Any) -> None:
    for path in Path:
        for name in ("configurations", "scaling", "env", "engine", "sshKeys", "x"):
            with suppress(UnprocessableRequest):
                parse(path, {name: value})


def test_who_owns_the_runtime_decides_what_is_refused() -> None:
    for path in Path:
        owner = RESPONSIBILITY[path][Layer.SCALING_AND_RUNTIME]
        mine, other = ("image", "engine") if owner is Party.CUSTOMER else ("engine", "image")
        with pytest.raises(NotResponsible):
            parse(path, {other: {}})
        with pytest.raises(UnprocessableRequest) as refusal:
            parse(path, {mine: 7})
        assert not isinstance(refusal.value, NotResponsible)


def test_an_admin_may_choose_the_engines_image() -> None:
    spec = DEDICATED | WEIGHTS | {"engine": {"name": "vllm", "image": "v@sha256:1"}}
    with pytest.raises(NotResponsible):
        parse(Path.DEDICATED, spec)
    parse(Path.DEDICATED, spec, by_tenant=False)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-rsa " + PUBLIC_KEY.split()[1],
        PUBLIC_KEY + "\nssh-rsa another",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        'command="x" ' + PUBLIC_KEY,
    ],
)
def test_what_is_no_public_key_is_refused(line: str) -> None:
    keys = [{"name": "k", "publicKey": line}]
    with pytest.raises(UnprocessableRequest, match="not a public key"):
        parse(Path.BARE, BARE | {"sshKeys": keys})


def test_two_keys_of_one_name_are_refused() -> None:
    keys = [{"name": "k", "publicKey": PUBLIC_KEY}] * 2
    with pytest.raises(UnprocessableRequest, match="another key is called so"):
        parse(Path.BARE, BARE | {"sshKeys": keys})


@pytest.mark.parametrize(
    ("path", "spec"), [(Path.DEDICATED, DEDICATED | WEIGHTS), (Path.BARE, BARE)]
)
def test_a_spec_is_stopped_in_its_own_word(path: Path, spec: dict[str, Any]) -> None:
    running = parse(path, spec)
    stopped = specs.with_stopped(running, True)
    assert (specs.is_stopped(running), specs.is_stopped(stopped)) == (False, True)
    assert specs.with_stopped(stopped, False) == running
    assert specs.stored(path, stopped.wire()) == stopped


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"env": {"A=B": "c"}}, "spec.env"),
        ({"env": {"": "c"}}, "spec.env"),
        ({"env": {"1ST": "c"}}, "spec.env"),
        ({"volume": {"sizeGiB": 1, "mountPath": "/a:/b"}}, "spec.volume.mountPath"),
        ({"volume": {"sizeGiB": 1, "mountPath": "/a/../dev"}}, "spec.volume.mountPath"),
        ({"volume": {"sizeGiB": 1, "mountPath": "/dev/shm"}}, "spec.volume.mountPath"),
    ],
)
def test_what_no_pod_can_be_made_of_is_refused(change: dict[str, Any], param: str) -> None:
    with pytest.raises(UnprocessableRequest) as refused:
        parse(Path.BARE, BARE | change)
    assert refused.value.param == param
    parse(Path.BARE, BARE | {"env": {"HF_HOME": "/data"}, "volume": {"sizeGiB": 1}})
