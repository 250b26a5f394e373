"""Weights on a Hugging Face hub, or a mirror that speaks its HTTP API."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from worker.errors import WeightsError
from worker.weights import http
from worker.weights.source import SourceFile

PUBLIC = "https://huggingface.co"


class Hub:
    """One revision of a repository; a branch is pinned to the commit it names at the beginning."""

    def __init__(
        self, repo: str, revision: str = "main", *, endpoint: str = "", token: str = ""
    ) -> None:
        self._root = (endpoint or PUBLIC).rstrip("/")
        self._repo = quote(repo)
        self._revision = revision
        self._commit = ""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = http.client()

    def files(self) -> list[SourceFile]:
        """See `Source.files`."""
        api = f"{self._root}/api/models/{self._repo}"
        found = http.ask(
            self._client, f"{api}/revision/{quote(self._revision, safe='')}", self._headers
        )
        self._commit = str(found.json()["sha"])
        url = f"{api}/tree/{self._commit}?recursive=true"
        files: list[SourceFile] = []
        while url:
            page = http.ask(self._client, url, self._headers)
            files += [_file(entry) for entry in page.json() if entry["type"] == "file"]
            url = page.links.get("next", {}).get("url", "")
        if not files:
            raise WeightsError(f"{self._root}/{self._repo} has no files")
        return files

    def read(
        self, file: SourceFile, offset: int
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """See `Source.read`."""
        url = f"{self._root}/{self._repo}/resolve/{self._commit}/{quote(file.path)}"
        return http.stream(self._client, url, self._headers, offset)


def _file(entry: dict[str, Any]) -> SourceFile:
    large = entry.get("lfs") or {}
    return SourceFile(
        path=entry["path"],
        size_bytes=int(large.get("size", entry["size"])),
        version=large.get("oid", entry["oid"]),
        sha256=large.get("oid", ""),  # a small file's id is Git's, not of its bytes alone
    )
