"""From documents to batches: which examples meet in a step, packed, counted and numbered.

Examples come in chunks; a chunk's batches are a function of its number alone, so training can go on
anywhere, and any process can make any chunk. Rows are as long as their documents need, and all
rows of a batch equally long. Everything here is on the host, in NumPy.
"""

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch

from worker.config import CSA_RATIO, ModelConfig
from worker.demo.layout import PADDING, Layout, lay_out
from worker.demo.losses import Targets

WIDTHS = (256, 512, 1024)  # of rows, in tokens; no document may be longer
SAMPLED_STEP = 1_024  # sampled rows come in such lots, so that shapes are few


@dataclass(frozen=True, slots=True)
class Document:
    """One example. `learned[i]`: token i is to be predicted; `task` is told apart in the log."""

    ids: Sequence[int]
    learned: Sequence[bool]
    task: str


Source = Callable[[int], Document]  # by number; a pure function


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows on the host, [B, T] each: ids, documents (PADDING: none), and whether the *next* token
    is learned. `tasks` are the documents' tasks, by number."""

    ids: numpy.ndarray
    documents: numpy.ndarray
    learns_next: numpy.ndarray
    tasks: list[str]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The vocabulary as training sees it: `known` ids learn; `place` [vocab] is each one's row, or
    -1. `frozen` [vocab, D] are everybody's random rows, `table` the hash layers' experts."""

    known: torch.Tensor
    place: torch.Tensor
    frozen: torch.Tensor
    table: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step takes, on its device: `frozen` [S, D] are the candidates that do not learn, and
    `tasks` [learned] each target's task in `names`."""

    layout: Layout
    targets: Targets
    frozen: torch.Tensor
    tasks: torch.Tensor
    names: list[str]
    tokens: int


def chunk(source: Source, number: int, *, examples: int, step_tokens: int) -> list[Packed]:
    """The batches of chunk `number`, of `examples` examples, in the order of training."""
    first = number * examples
    return packed([source(first + i) for i in range(examples)], step_tokens, seed=number)


def packed(documents: Sequence[Document], step_tokens: int, seed: int) -> list[Packed]:
    """Pack documents of at most max(WIDTHS) tokens, longest first, each into the row with the
    least room that takes it; the last batch of each width is filled with empty rows."""
    rows: dict[int, list[list[Document]]] = {width: [] for width in WIDTHS}
    open_rows: list[tuple[int, int, int]] = []  # room, width, number; ascending
    for document in sorted(documents, key=lambda d: len(d.ids), reverse=True):
        need = _aligned(len(document.ids))
        found = bisect.bisect_left(open_rows, (need, 0, 0))
        if found < len(open_rows):
            room, width, number = open_rows.pop(found)
        else:
            width = next(w for w in WIDTHS if w >= need)
            room, number = width, len(rows[width])
            rows[width].append([])
        rows[width][number].append(document)
        bisect.insort(open_rows, (room - need, width, number))
    batches: list[Packed] = []
    for width, content in rows.items():
        random.Random(f"{seed}/{width}").shuffle(content)
        size = max(1, step_tokens // width)
        batches += [_laid(content[i : i + size], size, width) for i in range(0, len(content), size)]
    random.Random(seed).shuffle(batches)
    return batches


def on_device(
    batch: Packed, candidates: Candidates, config: ModelConfig, sampled_rows: int, seed: int
) -> Batch:
    """Number the tokens of a batch by candidate rows, and put all on the candidates' device."""
    device = candidates.known.device
    ids = torch.from_numpy(batch.ids).to(device)
    own, sampled = _sampled(batch.ids, candidates, sampled_rows, seed)
    extra = torch.cat((own, sampled)).to(device)
    place = candidates.place.clone()
    place[extra] = torch.arange(len(extra), device=device) + len(candidates.known)
    slots = place[ids]
    hashed = candidates.table[:, ids.flatten()]
    documents = torch.from_numpy(batch.documents).to(device)
    offset = torch.zeros(len(candidates.known) + len(extra), device=device)
    rest = len(candidates.place) - len(candidates.known) - len(own)
    offset[len(offset) - len(sampled) :] = float(numpy.log(max(rest, 1) / max(len(sampled), 1)))
    flat = slots.flatten()
    rows, after = _learned(batch, 1), _learned(batch, 2)
    owners = torch.from_numpy(batch.documents.flatten()[rows.numpy()])
    targets = Targets(
        rows=rows.to(device),
        tokens=flat[(rows + 1).to(device)],
        shares=_shares(owners).to(device),
        draft_rows=after.to(device),
        draft_tokens=flat[(after + 2).to(device)],
        offset=offset,
    )
    names = sorted(set(batch.tasks))
    number = {name: i for i, name in enumerate(names)}
    tasks = torch.tensor([number[batch.tasks[d]] for d in owners.tolist()], dtype=torch.long)
    layout = lay_out(config, slots, documents, hashed)
    tokens = int((batch.documents != PADDING).sum())
    return Batch(layout, targets, candidates.frozen[extra], tasks.to(device), names, tokens)


def _laid(rows: Sequence[Sequence[Document]], size: int, width: int) -> Packed:
    ids = numpy.zeros((size, width), dtype=numpy.int64)
    owner = numpy.full((size, width), PADDING, dtype=numpy.int64)
    learns_next = numpy.zeros((size, width), dtype=bool)
    tasks: list[str] = []
    for b, row in enumerate(rows):
        start = 0
        for document in row:
            stop = start + len(document.ids)
            ids[b, start:stop] = document.ids
            owner[b, start:stop] = len(tasks)
            learns_next[b, start : stop - 1] = document.learned[1:]
            tasks.append(document.task)
            start += _aligned(len(document.ids))
    return Packed(ids, owner, learns_next, tasks)


def _aligned(tokens: int) -> int:
    return -(-tokens // CSA_RATIO) * CSA_RATIO


def _learned(batch: Packed, ahead: int) -> torch.Tensor:
    """Flat positions whose token `ahead` places on is learned."""
    learned = batch.learns_next.copy()
    if ahead == 2:  # the next token must be the document's as well
        learned[:, :-1] = learned[:, 1:] & (batch.documents[:, :-1] == batch.documents[:, 1:])
        learned[:, -1] = False
    return torch.from_numpy(learned.flatten().nonzero()[0])


def _shares(owners: torch.Tensor) -> torch.Tensor:
    """How much each learned token counts, [learned], given its document: a document as the root of
    its answer's length. Were all tokens alike, long answers, most of them markup, would drown the
    word or number that others consist of."""
    weights = owners.bincount().float().rsqrt()[owners]
    return weights / weights.sum()


def _sampled(
    ids: numpy.ndarray, candidates: Candidates, count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch's own tokens that do not learn, and others drawn from the rest, `count` or a few
    more: together a multiple of SAMPLED_STEP, if the vocabulary has as many."""
    place = candidates.place.cpu()
    unique = torch.from_numpy(numpy.unique(ids))
    own = unique[place[unique] < 0]
    taken = place >= 0
    taken[own] = True
    free = (~taken).nonzero().squeeze(1)
    want = -(-(len(own) + count) // SAMPLED_STEP) * SAMPLED_STEP - len(own)
    order = numpy.random.Generator(numpy.random.Philox(key=seed)).permutation(len(free))[:want]
    return own, free[torch.from_numpy(order)]
