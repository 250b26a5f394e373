"""Weights in an S3 bucket, or in a store that speaks S3.

Credentials are found as AWS's own tools find them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a
pod's role, the machine's. Without any, the bucket must be public.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import Session

from worker.errors import WeightsError
from worker.weights import http
from worker.weights.source import Interrupted, SourceFile


class Bucket:
    """Everything under a prefix of a bucket."""

    def __init__(self, url: str, *, region: str = "us-east-1", endpoint: str = "") -> None:
        """Prepare.

        Args:
            url: `s3://bucket/prefix`.
            endpoint: URL of the store; empty: AWS. Asked as `<endpoint>/<bucket>/<key>`.
        """
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._region = region
        root = endpoint.rstrip("/") or f"https://s3.{region}.amazonaws.com"
        self._root = f"{root}/{quote(bucket)}"
        self._credentials = Session().get_credentials()
        self._client = http.client()

    def files(self) -> list[SourceFile]:
        """See `Source.files`."""
        files: list[SourceFile] = []
        token = ""
        while True:
            query = {"list-type": "2", "prefix": self._prefix}
            query |= {"continuation-token": token} if token else {}
            # The signature wants `%20` for a space, and words in order.
            url = f"{self._root}?{urlencode(sorted(query.items()), quote_via=quote)}"
            page = _parsed(http.ask(self._client, url, self._signed(url)).content)
            files += [it for it in map(self._file, page.iter("Contents")) if it is not None]
            token = page.findtext("NextContinuationToken") or ""
            if not token:
                break
        if not files:
            raise WeightsError(f"{self._root}/{self._prefix} has no files")
        return files

    def read(
        self, file: SourceFile, offset: int
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """See `Source.read`."""
        url = f"{self._root}/{quote(self._prefix + file.path)}"
        headers = {**self._signed(url), "If-Match": f'"{file.version}"'}
        return http.stream(self._client, url, headers, offset)

    def _file(self, entry: ElementTree.Element) -> SourceFile | None:
        path = entry.findtext("Key", "").removeprefix(self._prefix)
        if not path or path.endswith("/"):
            return None  # a folder's placeholder
        size_bytes = int(entry.findtext("Size", "0"))
        return SourceFile(path, size_bytes, entry.findtext("ETag", "").strip('"'))

    def _signed(self, url: str) -> dict[str, str]:
        if self._credentials is None:
            return {}
        request = AWSRequest("GET", url)
        frozen = self._credentials.get_frozen_credentials()
        S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
        return dict(request.headers)


def _parsed(content: bytes) -> ElementTree.Element:
    try:
        page = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        raise Interrupted("the bucket's list is not XML") from None
    for element in page.iter():
        element.tag = element.tag.rpartition("}")[2]  # stores differ in the namespace
    return page
