"""What a container's manifest says to run, as a local command and environment: pure, for `pod`.

Images are not looked at: commands are found on this machine. Where the container would see a mount,
its arguments and variables name the folder that stands for it.
"""

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.cluster import CONFIG_MAPS, SECRETS, NotFound, Object, Resource
from controlplane.local.texts import texts_of

_VARIABLE = re.compile(r"\$(?:\$|\((?P<name>[-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_FIELD_KEY = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class NotConfigured(Exception):
    """Something the manifest refers to is missing; kubelets call it CreateContainerConfigError."""


@dataclass(frozen=True)
class Command:
    """A local process to start."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def command_of(
    container: Object,
    pod: Object,
    *,
    folders: Mapping[str, Path],
    environment: Mapping[str, str],
    read: Callable[[Resource, str], Object],
    programs: Container[str] | None = None,
) -> Command:
    """Return what runs a container.

    Args:
        pod: with `podIP` in its status.
        folders: what stands for which path in the container.
        environment: beneath the container's own variables.
        read: returns a ConfigMap or Secret of the pod's namespace.
        programs: what may be run; None: anything.

    Raises:
        NotConfigured: there is no command, it may not be run here, it leaves its volumes, or
            something it refers to is missing.
    """
    localised = localiser(folders)
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        variables |= _all_of(source, read)
    for entry in container.get("env", ()):
        variables[entry["name"]] = _value(entry, variables, pod, read)
    words = [*container.get("command", ()), *container.get("args", ())]
    if not container.get("command"):
        raise NotConfigured("images are not run here: the container needs a command")
    if programs is not None and words[0] not in programs:
        raise NotConfigured(f"{words[0]} is not run on this machine, where nothing confines it")
    return Command(
        tuple(localised(expanded(word, variables)) for word in words),
        {**environment, **{name: localised(value) for name, value in variables.items()}},
    )


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with `$(NAME)` replaced; `$$` is a dollar, unknown names stay."""

    def replaced(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return "$"
        return variables.get(name, found[0])

    return _VARIABLE.sub(replaced, text)


def localiser(folders: Mapping[str, Path]) -> Callable[[str], str]:
    """Return what puts folders of this machine in the place of a container's paths."""
    if not folders:
        return lambda text: text
    longest_first = sorted(folders, key=len, reverse=True)
    alternatives = "|".join(re.escape(path.rstrip("/")) for path in longest_first)
    # Only whole paths: neither /data in /my/data nor in /database.
    pattern = re.compile(rf"(?<![\w./-])(?P<path>{alternatives})(?![\w.-])")
    found = {path.rstrip("/"): str(folder) for path, folder in folders.items()}

    def localised(text: str) -> str:
        local, count = pattern.subn(lambda it: found[it["path"]], text)
        if count and ".." in text.split("/"):
            raise NotConfigured(f"{text!r} leaves its volume")
        return local

    return localised


def _value(
    entry: Object,
    variables: Mapping[str, str],
    pod: Object,
    read: Callable[[Resource, str], Object],
) -> str:
    source = entry.get("valueFrom")
    if source is None:
        return expanded(entry.get("value", ""), variables)
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for word, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
        if word in source:
            texts = _texts(source[word], resource, read)
            if source[word]["key"] in texts:
                return texts[source[word]["key"]]
            if source[word].get("optional"):
                return ""
            raise NotConfigured(f"couldn't find key {source[word]['key']} in {source[word]}")
    raise NotConfigured(f"env {entry['name']}: {sorted(source)} is not known here")


def _field(pod: Object, path: str) -> str:
    keyed = _FIELD_KEY.match(path)
    if keyed:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    value: object = pod
    for step in path.split("."):
        value = value.get(step, "") if isinstance(value, dict) else ""
    return str(value)


def _all_of(source: Object, read: Callable[[Resource, str], Object]) -> dict[str, str]:
    word, resource = (
        ("secretRef", SECRETS) if "secretRef" in source else ("configMapRef", CONFIG_MAPS)
    )
    texts = _texts(source[word], resource, read)
    return {source.get("prefix", "") + name: text for name, text in texts.items()}


def _texts(
    reference: Object, resource: Resource, read: Callable[[Resource, str], Object]
) -> dict[str, str]:
    try:
        return texts_of(read(resource, reference["name"]))
    except NotFound as error:
        if reference.get("optional"):
            return {}
        raise NotConfigured(str(error)) from None
