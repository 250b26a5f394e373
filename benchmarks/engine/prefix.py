"""Time to the first token of an 8K-token prompt, 95 % of it known, against the same unknown.

The known part is an earlier turn of the conversation, as it happens in a chat: its prompt ran
before, the new one repeats it and adds a tail.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.engine.drive import Drive, greedy
from benchmarks.engine.models import MODELS, model_directory
from benchmarks.engine.results import Row, milliseconds
from worker.config import EngineConfig
from worker.runner.model_runner import ModelRunner

AIM = 0.08
KNOWN_SHARE = 0.95
KNOWN_PAGES = 30  # 7,680 of 8,084 tokens


def measure(name: str, root: Path, *, rounds: int, known_pages: int = KNOWN_PAGES) -> Iterator[Row]:
    """One row: the median of `rounds` prompts that are known and as many that are not."""
    config = MODELS[name]
    known_tokens = known_pages * config.page_tokens
    prompt_tokens = round(known_tokens / KNOWN_SHARE)
    engine = EngineConfig(max_model_len=8_192, pages=256)
    runner = ModelRunner(model_directory(name, root), engine)
    drive = Drive(config, engine, runner.execute)
    prompt = Random(1).choices(range(config.vocab_size), k=prompt_tokens)
    drive.run([greedy("warm-up", prompt[:300], 2, b"warm-up")])
    hits, misses = [], []
    for i in range(rounds):
        salt = str(i).encode()
        drive.run([greedy("earlier turn", prompt[: known_tokens + 1], 1, salt)])
        known, unknown = greedy("known", prompt, 1, salt), greedy("unknown", prompt, 1, b"-" + salt)
        misses.append(drive.run([unknown])["unknown"])
        hits.append(drive.run([known])["known"])
        assert (known.cache_hit_tokens, unknown.cache_hit_tokens) == (known_tokens, 0)
    ratios = [hit / miss for hit, miss in zip(hits, misses, strict=True)]
    yield Row(
        "prefix hit",
        name,
        f"{known_tokens:,} of {prompt_tokens:,} tokens known",
        milliseconds(median(hits)),
        f"{milliseconds(median(misses))} with none known",
        median(hits) / median(misses),
        (min(ratios), max(ratios)),
        AIM,
    )
