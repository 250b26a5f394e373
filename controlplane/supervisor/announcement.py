"""What a running product tells: `up.json` for scripts, a summary for people.

`up.json` is written by `up` when everything has been proven to work, and again whenever a pid
changes; it is removed when the product stops.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.processes.files import read_json, write_json
from controlplane.processes.process import Identity
from controlplane.supervisor.built_in import SERVING, BuiltInModel


@dataclass(frozen=True)
class Announcement:
    """Where the product listens and what opens it.

    `base_url` is the customers' origin, ready for an OpenAI client: as at DeepSeek, every path
    answers with and without `/v1`. `model` is what the engine serves.
    """

    model: BuiltInModel
    base_url: str
    api_key: str
    admin_url: str
    admin_key: str
    worker_url: str
    database_url: str
    redis_url: str

    def save(self, path: Path, processes: Mapping[str, Identity]) -> None:
        """Write `up.json`, readable by its owner alone."""
        pids = {name: identity.pid for name, identity in processes.items()}
        write_json(path, {**asdict(self), "pids": pids})


@dataclass(frozen=True)
class _Pids:
    pids: dict[str, int]


def read_announcement(path: Path) -> Announcement | None:
    """Return what the last `up` announced; None when nothing is running."""
    return read_json(path, Announcement)


def announced_pids(path: Path) -> dict[str, int]:
    """Return the pids the last `up` announced; empty when nothing is running."""
    announced = read_json(path, _Pids)
    return announced.pids if announced else {}


def summary(it: Announcement, model: str) -> str:
    """Return what `up` prints at the end: URLs, keys, a curl line and a Python snippet."""
    return f"""
Flashplane is ready.

  base URL   {it.base_url}
  API key    {it.api_key}
  admin API  {it.admin_url}/docs
  admin key  {it.admin_key}

curl {it.base_url}/v1/chat/completions \\
  -H 'Authorization: Bearer {it.api_key}' -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "max_tokens": 256, "messages": [{{"role": "user", "content": "Hi"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{it.base_url}", api_key="{it.api_key}")
print(client.chat.completions.create(
    model="{model}", max_tokens=256, messages=[{{"role": "user", "content": "Hi"}}]))

{SERVING[it.model].told}
See `flashplane status`; stop with Ctrl-C or `flashplane down`.
"""
