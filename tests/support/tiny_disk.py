"""Makes writes fail as a full disk does: the kernel's own limit on a file's size."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tiny_disk(most_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `most_bytes`; a write is cut short, then refused."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
