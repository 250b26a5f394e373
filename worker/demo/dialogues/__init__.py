"""Dialogues for the demo model, made by a script from templates and facts of this project.

`worker.demo.train` learns the side `train`; `worker.demo.evaluate` asks the side `held_out`.
"""

from worker.demo.dialogues.chance import Chance, Split
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.mixture import make

__all__ = ["Example", "Split", "example"]


def example(seed: int, number: int, split: Split) -> Example:
    """Example `number` of an endless row: the same for the same arguments, everywhere."""
    return make(Chance(seed, number, split))
