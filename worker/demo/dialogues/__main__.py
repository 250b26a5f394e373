"""`python -m worker.demo.dialogues`: what the demo model learns from, counted and shown.

For whoever changes a task: look at samples, at how long its examples are, and at how many rows of
the vocabulary they need.
"""

import itertools
import time
from collections import Counter, defaultdict
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from worker.demo.dialogues import Example, example
from worker.demo.dialogues.encode import Encoded, encode
from worker.demo.dialogues.vocabulary import tokenizer_file
from worker.encoding.tokenizer import Tokenizer

RARE = 8  # tokens that occur less often in the count are copied, not known


def main(
    stats: Annotated[bool, typer.Option("--stats", help="Count tokens per task.")] = False,
    count: Annotated[int, typer.Option(min=1, help="Examples to count.")] = 2000,
    samples: Annotated[int, typer.Option(min=0, help="Examples to show, of each task.")] = 1,
    task: Annotated[str, typer.Option(help="Only this task.")] = "",
    split: Annotated[
        Literal["train", "held_out"], typer.Option(help="Side: train or held_out.")
    ] = "train",
    seed: Annotated[int, typer.Option(help="Another seed, other examples.")] = 0,
) -> None:
    """Show examples, and with --stats count them.

    A line per task: its share of examples, tokens per example and learned tokens of these, which
    are what training pays for and what it gets. `rows in use` are the tokens that occur at all;
    those that occur often are the ones worth storing.
    """
    console = Console(highlight=False)
    tokenizer = Tokenizer(tokenizer_file())
    started = time.perf_counter()
    shown: Counter[str] = Counter()
    encoded: dict[str, list[Encoded]] = defaultdict(list)
    for number in range(count):
        one = example(seed, number, split)
        if task in ("", one.task):
            encoded[one.task].append(encode(one, tokenizer))
            if shown[one.task] < samples:
                shown[one.task] += 1
                _show(console, one, encoded[one.task][-1], tokenizer)
    if stats:
        _count(console, encoded, time.perf_counter() - started)


def _show(console: Console, one: Example, encoded: Encoded, tokenizer: Tokenizer) -> None:
    """The text as the model sees it, what is learned in green."""
    console.rule(f"{one.task}{', thinking' if one.thinking else ''}")
    pairs = zip(encoded.ids, encoded.learned, strict=True)
    for learned, run in itertools.groupby(pairs, key=lambda pair: pair[1]):
        text = tokenizer.decode(token_id for token_id, _ in run)
        console.print(text, style="green" if learned else "", end="", markup=False)
    console.print()


def _count(console: Console, encoded: dict[str, list[Encoded]], seconds: float) -> None:
    table = Table("task", "share %", "tokens", "learned", "longest")
    total = sum(map(len, encoded.values()))
    rows: Counter[int] = Counter()
    for name, group in sorted(encoded.items(), key=lambda item: -len(item[1])):
        lengths = [len(one.ids) for one in group]
        learned = [sum(one.learned) for one in group]
        for one in group:
            rows.update(one.ids)
        table.add_row(
            name,
            f"{100 * len(group) / total:.1f}",
            f"{sum(lengths) / len(group):.0f}",
            f"{sum(learned) / len(group):.0f}",
            str(max(lengths)),
        )
    console.print(table)
    often = sum(1 for times in rows.values() if times >= RARE)
    console.print(
        f"{total} examples, {sum(rows.values())} tokens, {total / seconds:.0f} examples/s"
    )
    console.print(f"rows in use: {len(rows)}, {often} of them {RARE} times or more")


if __name__ == "__main__":
    typer.run(main)
