"""One digest for a folder of weights: what a deployment pins, and what is fetched must match."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PREFIX = "sha256:"


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return the digest of a folder.

    Args:
        hashes: SHA-256 in hex by path, with slashes.

    Returns:
        `sha256:` and the SHA-256 over the sorted lines `<SHA-256 of a file>  <its path>`, each with
        its line feed: what `sha256sum` prints of all files, sorted and hashed.
    """
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in hashes.items())
    return PREFIX + hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of_folder(folder: Path, threads: int = 4) -> str:
    """Return the digest of a folder on disk; reads all of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(threads) as pool:
        hashes = pool.map(_sha256, files)
        return digest_of(
            {
                path.relative_to(folder).as_posix(): it
                for path, it in zip(files, hashes, strict=True)
            }
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
