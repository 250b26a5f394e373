"""Documents for training, made beside it by processes of their own, a chunk ahead."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

from worker.demo.batches import WIDTHS, Document, Packed, packed
from worker.demo.dialogues import example
from worker.demo.dialogues.encode import encode
from worker.encoding.tokenizer import Tokenizer
from worker.model.tiny import tokenizer_file

EXAMPLES_OF_STEP = 0.25  # of a chunk for each of a step's tokens: some dozens of batches
PART = 256  # examples that a process makes at a time


class Documents:
    """Examples of the training side by number, and batches of them. Close it at the end."""

    def __init__(self, seed: int, processes: int) -> None:
        self.seed = seed
        # Spawned: a fork would take torch's threads along as they stand.
        self.pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def counts(self, examples: int) -> Counter[int]:
        """How often each token occurs in the first `examples` of them, made in all processes."""
        counts: Counter[int] = Counter()
        starts = range(0, examples, PART)
        parts = [
            self.pool.submit(_counted, self.seed, start, min(PART, examples - start))
            for start in starts
        ]
        for part in parts:
            counts.update(part.result())
        return counts

    def batches(
        self, chunk: int, batch: int, *, step_tokens: int
    ) -> Iterator[tuple[int, int, Packed]]:
        """Batches from `batch` of `chunk` on, without end, with their numbers."""
        examples = max(PART, round(step_tokens * EXAMPLES_OF_STEP))
        ahead = self._begun(chunk * examples, examples)
        while True:
            content = packed(_joined(ahead), step_tokens, seed=chunk)
            ahead = self._begun((chunk + 1) * examples, examples)
            for number, rows in enumerate(content[batch:], batch):
                yield chunk, number, rows
            chunk, batch = chunk + 1, 0

    def close(self) -> None:
        """Forget what is not begun, and end the processes."""
        self.pool.shutdown(cancel_futures=True)

    def _begun(self, first: int, count: int) -> list[Future[list[Document]]]:
        starts = range(first, first + count, PART)
        return [
            self.pool.submit(_made, self.seed, start, min(PART, first + count - start))
            for start in starts
        ]


def _joined(parts: Sequence[Future[list[Document]]]) -> list[Document]:
    return [document for part in parts for document in part.result()]


def _made(seed: int, first: int, count: int) -> list[Document]:
    made = (_document(seed, number) for number in range(first, first + count))
    return [document for document in made if len(document.ids) <= max(WIDTHS)]


def _counted(seed: int, first: int, count: int) -> Counter[int]:
    counts: Counter[int] = Counter()
    for document in _made(seed, first, count):
        counts.update(document.ids)
    return counts


def _document(seed: int, number: int) -> Document:
    told = example(seed, number, "train")
    encoded = encode(told, _tokenizer())
    return Document(encoded.ids, encoded.learned, told.task)


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer(tokenizer_file())
