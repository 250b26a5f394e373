"""The gateway's own key: kept in a file or a mounted Secret, made when missing."""

import os
from pathlib import Path

import asyncssh

from controlplane.errors import StartupError


def load(path: Path) -> asyncssh.SSHKey:
    """Return the key in `path`, readable by its owner alone; made when there is none.

    Raises:
        StartupError: it cannot be read or made.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise StartupError(
            f"The SSH host key {path} cannot be used ({error}): remove it to have a new one made,"
            " or point FLASHPLANE_SSH_HOST_KEY at another."
        ) from error
