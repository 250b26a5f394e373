"""`flashplane-worker fetch` and `digest`. Added to the command line by `worker.cli`."""

import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from worker.errors import WeightsError

Hub = Annotated[str, typer.Option("--hub", help="Repository on a hub: owner/name.")]
Revision = Annotated[str, typer.Option(help="Of the repository: commit, tag or branch.")]
S3 = Annotated[str, typer.Option("--s3", help="Folder in a bucket: s3://bucket/prefix.")]
Region = Annotated[str, typer.Option(help="Of the bucket.")]
Endpoint = Annotated[str, typer.Option(help="URL of a mirror, or of a store that speaks S3.")]
From = Annotated[Path | None, typer.Option("--from", help="Folder of this machine to copy.")]
Digest = Annotated[
    str, typer.Option(help="What the folder must be, as `flashplane-worker digest` tells it.")
]
Token = Annotated[str, typer.Option(envvar="HF_TOKEN", help="Key of the hub.")]
Parallel = Annotated[int, typer.Option(min=1, max=32, help="Files read at once.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(fetch)
    app.command()(digest)


def fetch(
    directory: Annotated[Path, typer.Argument(help="Where the weights will be, all at once.")],
    hub: Hub = "",
    revision: Revision = "main",
    s3: S3 = "",
    region: Region = "us-east-1",
    endpoint: Endpoint = "",
    copied: From = None,
    digest: Digest = "",
    token: Token = "",
    parallel: Parallel = 8,
) -> None:
    """Bring weights to this machine's disk: resumed where it broke off, verified, then renamed.

    Run twice at once it fetches once. For a bucket, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or
    the machine's role are used, if there are any.

      flashplane-worker fetch /weights/flash --hub deepseek-ai/DeepSeek-V4-Flash --revision COMMIT

      flashplane-worker fetch /weights/flash --s3 s3://models/v4-flash --region eu-central-1
    """
    # botocore takes its time to import; --help must not wait for it.
    from worker.weights.bucket import Bucket
    from worker.weights.fetch import Fetch
    from worker.weights.folder import Folder
    from worker.weights.hub import Hub as HubSource
    from worker.weights.source import Source

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    source: Source
    try:
        if [bool(hub), bool(s3), copied is not None].count(True) != 1:
            raise WeightsError("give exactly one of --hub, --s3 and --from")
        if hub:
            source = HubSource(hub, revision, endpoint=endpoint, token=token)
        elif s3:
            source = Bucket(s3, region=region, endpoint=endpoint)
        else:
            assert copied is not None
            source = Folder(copied)
        fetched = Fetch(source, directory, digest=digest, parallel=parallel).run()
    except (WeightsError, OSError) as error:
        _fail(error)
    typer.echo(f"{directory}: {'fetched' if fetched else 'was there'}")


def digest(
    directory: Annotated[Path, typer.Argument(help="Folder of weights.")],
) -> None:
    """Tell the digest of a folder of weights: what a deployment pins. Reads all of it."""
    from worker.weights.digest import digest_of_folder

    try:
        typer.echo(digest_of_folder(directory))
    except OSError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"flashplane-worker: {error}", err=True)
    sys.exit(1)
