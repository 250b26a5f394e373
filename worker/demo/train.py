"""`python -m worker.demo.train`: trains the demo model.

For whoever changes the dialogues or the model: the result is a run's directory, of which
`worker.demo.export` makes the stored form. Stopped or killed, it goes on with `--resume`.
"""

import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from worker.demo.fused import compile_pieces
from worker.demo.loop import Progress, begin, candidates, fixed, train
from worker.demo.presets import Preset, preset
from worker.demo.source import Documents
from worker.demo.state import FILE, TrainingState, load, save
from worker.demo.vocabulary import frequent
from worker.errors import ConfigError, WorkerError

LOG = "log.jsonl"
TOLD_EVERY_SECONDS = 10.0
KEPT_EVERY_SECONDS = 120.0
STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal asked for the end, after the step it met."""


def main(
    out: Annotated[Path, typer.Option(help="The run's directory: its state, and log.jsonl.")],
    form: Annotated[str, typer.Option("--preset", help="full (a GPU) or reduced.")] = "reduced",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    minutes: Annotated[float, typer.Option(min=0.0, help="0: as long as the preset says.")] = 0.0,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps in place of minutes: then the seed decides all.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, dialogues and samples.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's choice.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that write dialogues.")] = 1,
    eager: Annotated[
        bool, typer.Option("--eager", help="Compile nothing; else, with g++, what fuses.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in OUT.")] = False,
) -> None:
    """Train the demo model on dialogues that are written as it goes.

    A line every ten seconds: step, loss of the answers' tokens, of the guesses after them and how
    many of these are right, tokens per second, and what is left of the time.
    """
    if threads:
        torch.set_num_threads(threads)
    compiler = shutil.which("g++") is not None
    if not compiler and not eager:
        typer.echo("there is no g++: nothing is compiled, and steps take longer", err=True)
    compile_pieces(compiler and not eager)
    documents: Documents | None = None
    try:
        if not resume and (out / FILE).exists():
            raise ConfigError(f"{out / FILE} exists; go on with it by --resume, or choose another")
        state = load(out, device) if resume else None
        seed = seed if state is None else state.seed
        documents = Documents(seed, processes)
        if state is None:
            state = _begun(form, preset(form), documents, seed, device)
        chosen = preset(state.preset)
        chosen = dataclasses.replace(chosen, minutes=minutes or chosen.minutes)
        if steps and state.last_step is None:
            fixed(state, chosen, steps)
        train(
            state,
            chosen,
            candidates(state, chosen, device),
            documents.batches(state.chunk, state.batch, step_tokens=chosen.step_tokens),
            compute=torch.bfloat16,
            told=keeper(state, chosen, out),
        )
        save(state, out)
    except Stopped:
        typer.echo(f"stopped; what is learned is in {out}: go on by --resume", err=True)
        sys.exit(1)
    except (WorkerError, OSError) as error:
        typer.echo(f"worker.demo.train: {error}", err=True)
        sys.exit(1)
    finally:
        if documents is not None:
            documents.close()


def _begun(
    name: str, chosen: Preset, documents: Documents, seed: int, device: str
) -> TrainingState:
    counts = documents.counts(chosen.known_examples)
    known = frequent(counts, least=chosen.least_count, most=chosen.most_known)
    state = begin(name, chosen, known, seed)
    state.tensors = {n: tensor.to(device) for n, tensor in state.tensors.items()}
    return state


def keeper(state: TrainingState, chosen: Preset, out: Path) -> Callable[[Progress], None]:
    """Tells and keeps, each at its times, and both when it ends the run at a signal's word."""
    out.mkdir(parents=True, exist_ok=True)
    next_told, next_kept = 0.0, time.monotonic() + KEPT_EVERY_SECONDS
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in STOPS:
        signal.signal(number, stop)

    def told(progress: Progress) -> None:
        nonlocal next_told, next_kept
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(dataclasses.asdict(progress)) + "\n")
        if time.monotonic() >= next_told:
            next_told = time.monotonic() + TOLD_EVERY_SECONDS
            typer.echo(_line(progress, state, chosen), err=True)
        if stopping or time.monotonic() >= next_kept:
            next_kept = time.monotonic() + KEPT_EVERY_SECONDS
            save(state, out)
        if stopping:
            raise Stopped

    return told


def _line(progress: Progress, state: TrainingState, chosen: Preset) -> str:
    left = 60 * chosen.minutes - state.seconds
    if state.last_step is not None:
        left = (state.last_step - state.step) * state.seconds / state.step
    return (
        f"step {progress.step} loss {progress.loss:.3f} draft {progress.draft:.3f} "
        f"hits {progress.draft_hits:.2f} index {progress.index:.3f} norm {progress.norm:.2f} "
        f"rate {progress.rate:.2f} {state.tokens / state.seconds:.0f} tokens/s "
        f"left {max(0.0, left) / 60:.1f} min"
    )


if __name__ == "__main__":
    typer.run(main)
