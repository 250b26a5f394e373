"""Output tokens per second against transformers' `generate`, one request after the other.

Same checkpoint, float32, same threads. The rival answers each request once, a share of them in
every round; ours answers all of them in every round, under a new salt, so that nothing is taken
from the prefix cache.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.engine.drive import Drive, greedy
from benchmarks.engine.models import MODELS, model_directory
from benchmarks.engine.results import Row
from benchmarks.engine.rival import generate_serially, load_rival
from worker.config import EngineConfig
from worker.runner.model_runner import ModelRunner

AIMS = {1: 1.0, 32: 5.0}  # by requests at once
PROMPT_TOKENS = (8, 96)
OUTPUT_TOKENS = (16, 48)
ENGINE = EngineConfig(max_model_len=4_096, max_sequences=32, pages=128)


def measure(
    name: str, root: Path, *, rounds: int, requests: Iterable[int] = tuple(AIMS)
) -> Iterator[Row]:
    """A row for each number of requests of different lengths at once."""
    config, directory = MODELS[name], model_directory(name, root)
    drive = Drive(config, ENGINE, ModelRunner(directory, ENGINE).execute)
    rival = load_rival(directory, config)
    for count in requests:
        work = _work(config.vocab_size, count)
        yield _compare(name, drive, rival, work, rounds, AIMS.get(count))


Work = list[tuple[list[int], int]]  # prompts, and how many tokens each is to bring


def _work(vocab: int, count: int) -> Work:
    random = Random(count)
    return [
        (
            random.choices(range(vocab), k=random.randint(*PROMPT_TOKENS)),
            random.randint(*OUTPUT_TOKENS),
        )
        for _ in range(count)
    ]


def _compare(
    name: str, drive: Drive, rival: object, work: Work, rounds: int, aim: float | None
) -> Row:
    generate_serially(rival, [(work[0][0], 2)])  # both have run once before anything is timed
    drive.run([greedy("first", work[0][0], 2)])
    theirs: list[float] = []
    ours: list[float] = []
    same = total = 0
    for i in range(rounds):
        own = slice(i, None, rounds) if len(work) >= rounds else slice(None)
        begin = time.perf_counter()
        answers = generate_serially(rival, work[own])
        theirs.append(_tokens(work[own]) / (time.perf_counter() - begin))
        salt = str(i).encode()
        requests = [greedy(f"{i}/{j}", p, n, salt) for j, (p, n) in enumerate(work)]
        begin = time.perf_counter()
        drive.run(requests)
        ours.append(_tokens(work) / (time.perf_counter() - begin))
        for request, answer in zip(requests[own], answers, strict=True):
            same += sum(a == b for a, b in zip(request.output_token_ids, answer, strict=True))
            total += len(answer)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        "throughput",
        name,
        f"{len(work)} at once, {same / total:.1%} same tokens",
        f"{median(ours):.3g} tokens/s",
        f"{median(theirs):.3g} tokens/s serially",
        median(ours) / median(theirs),
        (min(ratios), max(ratios)),
        aim,
        at_most=False,
    )


def _tokens(work: Work) -> int:
    return sum(count for _, count in work)
