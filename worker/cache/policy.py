"""Where snapshots are kept, by the name in `EngineConfig.snapshots`. Used by `worker.engine.build`.

    full     at every page boundary that a step ends on; prompts are cut so that they do
    every:P  only at multiples of P pages
    window   nowhere: a prefix continues from its pages alone

Whatever the policy, a state that was not kept is rebuilt where that is less work: the last
`ModelConfig.state_reach_tokens` before the prefix's end are computed again.
"""

import re

from worker.errors import ConfigError


def snapshot_interval_pages(name: str) -> int:
    """Pages between boundaries at which snapshots are kept; 0: none are. Raises ConfigError."""
    if name == "full":
        return 1
    if name == "window":
        return 0
    every = re.fullmatch(r"every:([1-9][0-9]{0,5})", name)
    if every is None:
        raise ConfigError(f"snapshots must be full, every:P (P pages) or window, not {name!r}")
    return int(every[1])
