"""Price books that ship with the product; `flashplane prices import NAME` publishes one."""

from importlib.resources import files


def text(name: str) -> str | None:
    """Return the YAML of an example book, None when there is none of this name."""
    file = files(__name__) / f"{name}.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def names() -> list[str]:
    """Return the names of all example books, sorted."""
    found = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))
