"""`flashplane-worker`: serve a model directory, fetch one, look into one, write a tiny one."""

import dataclasses
import importlib.metadata
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from worker.config import MOST_DRAFT_TOKENS
from worker.errors import WorkerError
from worker.weights import command as weights

app = typer.Typer(
    help="""Run DeepSeek-V4-Flash: an engine behind an OpenAI-style HTTP server.

    Try it without weights:

      flashplane-worker model tiny /tmp/tiny

      flashplane-worker serve /tmp/tiny --port 8100

      curl http://127.0.0.1:8100/v1/models
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Make and inspect model directories.", no_args_is_help=True)
app.add_typer(model_app, name="model")
weights.add_to(app)


class Device(StrEnum):
    """Where tensors live."""

    CPU = "cpu"
    CUDA = "cuda"


class DType(StrEnum):
    """Arithmetic: float32 (the oracle), bfloat16, or the official quantised numerics."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    OFFICIAL = "official"


class KVCacheDType(StrEnum):
    """Storage of the KV cache: as computed, or DeepSeek's packed FP8 entries."""

    AUTO = "auto"
    FP8 = "fp8"


class Kernels(StrEnum):
    """Whose kernels compute: auto is triton on Hopper GPUs and later, else reference."""

    AUTO = "auto"
    REFERENCE = "reference"
    TRITON = "triton"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


MaxModelLen = Annotated[int, typer.Option(min=2, help="Prompt and output tokens of one request.")]
ServedModelName = Annotated[str, typer.Option(help="The name requests must ask for.")]
EffortProfile = Annotated[str, typer.Option(help="Meaning of reasoning_effort: preview or 0731.")]
EpSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Ranks that share the routed experts: a process each, on cuda a GPU each. Each has "
        "its own pages, state slots, max-sequences, max-batch-tokens and threads.",
    ),
]
EpTimeout = Annotated[
    int, typer.Option(min=1, help="A rank that the others wait for so long has failed.")
]
MaxWaiting = Annotated[int, typer.Option(min=0, help="Requests that may wait for room before 503.")]
Pages = Annotated[
    int, typer.Option(min=0, help="KV pages of 256 tokens; 0: four full-length requests.")
]
DraftTokens = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST_DRAFT_TOKENS,
        help="Tokens to guess ahead with the model's MTP block and check in the next forward; "
        "0: none. Answers stay the same.",
    ),
]
KVCache = Annotated[
    KVCacheDType,
    typer.Option(
        "--kv-cache-dtype", help="auto: as dtype computes; fp8: packed, 57 % of bfloat16's bytes."
    ),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(
        help="triton: written for Hopper GPUs; reference: plain torch, anywhere; auto: triton on "
        "cuda from compute capability 9.0 on, else reference."
    ),
]
Snapshots = Annotated[
    str,
    typer.Option(
        help="Where a prefix's state is kept: full (page boundaries), every:P (each P pages), or "
        "window (nowhere: prefixes recompute what the windows of all layers reach back)."
    ),
]
SnapshotsKept = Annotated[
    int, typer.Option(min=0, help="States kept for reuse; 0: one for every four pages.")
]
DrainSeconds = Annotated[
    int, typer.Option(min=0, help="After SIGTERM, let requests finish this long.")
]
JournalFile = Annotated[
    Path | None, typer.Option(help="Record every request's usage here; else nowhere. See /usage.")
]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="FLASHPLANE_ENGINE_TOKEN",
        help="What requests must show as a bearer token, /health and /metrics apart. Others on the "
        "machine can read a command line: prefer the variable, or the file.",
    ),
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File whose first line is the API key.")]
LogFile = Annotated[
    Path | None, typer.Option(help="Write JSON logs here, rotated; else to stderr.")
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"flashplane-worker {importlib.metadata.version('flashplane')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    directory: Annotated[Path, typer.Argument(help="Model directory in the official format.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.CPU,
    dtype: Annotated[DType, typer.Option(help="Arithmetic.")] = DType.FLOAT32,
    kernels: KernelsOption = Kernels.AUTO,
    max_model_len: MaxModelLen = 32_768,
    served_model_name: ServedModelName = "deepseek-v4-flash",
    effort_profile: EffortProfile = "preview",
    max_sequences: Annotated[int, typer.Option(min=1, help="Requests in one forward.")] = 32,
    max_waiting: MaxWaiting = 256,
    max_batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in one forward.")] = 2_048,
    pages: Pages = 0,
    draft_tokens: DraftTokens = 0,
    kv_cache_dtype: KVCache = KVCacheDType.AUTO,
    snapshots: Snapshots = "full",
    snapshots_kept: SnapshotsKept = 0,
    ep_size: EpSize = 1,
    ep_timeout_seconds: EpTimeout = 60,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: half the cores.")] = 0,
    drain_seconds: DrainSeconds = 30,
    journal: JournalFile = None,
    journal_hours: Annotated[float, typer.Option(min=0.0, help="Keep usage this long.")] = 72.0,
    api_key: ApiKey = "",
    api_key_file: ApiKeyFile = None,
    log_level: Annotated[LogLevel, typer.Option(help="Least level told.")] = LogLevel.INFO,
    log_file: LogFile = None,
) -> None:
    """Serve a model directory until SIGTERM.

    /health answers 200 once a first generation has succeeded.
    """
    # torch takes seconds to import; --help must not wait for it.
    from worker.config import EngineConfig, ModelConfig
    from worker.server.auth import read_key
    from worker.server.launch import ServeConfig, set_threads
    from worker.server.launch import serve as run
    from worker.server.log import configure

    try:
        configure(log_level.value, log_file)
        page_tokens = ModelConfig.from_dir(directory).page_tokens
        set_threads(threads, ep_size)
        page_count = pages or 4 * -(-max_model_len // page_tokens)
        kept = snapshots_kept or -(-page_count // 4)
        engine = EngineConfig(
            device=device.value,
            dtype=dtype.value,
            kernels=kernels.value,
            max_model_len=max_model_len,
            max_sequences=max_sequences,
            max_batch_tokens=max_batch_tokens,
            pages=page_count,
            draft_tokens=draft_tokens,
            kv_format=kv_cache_dtype.value,
            snapshots=snapshots,
            snapshots_kept=0 if snapshots == "window" else kept,
            ep_size=ep_size,
            ep_timeout_seconds=ep_timeout_seconds,
        )
        run(
            ServeConfig(
                directory=directory,
                host=host,
                port=port,
                model_name=served_model_name,
                effort_profile=effort_profile,
                max_waiting=max_waiting,
                drain_seconds=drain_seconds,
                journal=journal,
                journal_hours=journal_hours,
                api_key=read_key(api_key, api_key_file),
            ),
            engine,
        )
    except (WorkerError, OSError) as error:
        _fail(error)


@model_app.command()
def tiny(
    directory: Annotated[Path, typer.Argument(help="Directory to write; must not hold a model.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
) -> None:
    """Write a tiny V4-Flash: the official format with random weights. Its text is noise."""
    from worker.model.tiny import write_tiny

    try:
        write_tiny(directory, seed=seed)
    except (WorkerError, OSError) as error:
        _fail(error)
    typer.echo(f"wrote {directory}")


@model_app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="Directory to write; must not hold a model.")],
    stored: Annotated[
        Path | None,
        typer.Option(help="A model stored by worker.demo.export; else the one that comes along."),
    ] = None,
) -> None:
    """Install the demo model: a small V4-Flash that was trained on dialogues of this project.

    It chats, calls tools and writes JSON, and knows next to nothing. The official format, with
    the whole vocabulary and the tokenizer; takes seconds.
    """
    from worker.demo.export import install
    from worker.demo.packaged import STORED, content

    try:
        install(content(stored or STORED), directory)
    except (WorkerError, OSError) as error:
        _fail(error)
    typer.echo(f"wrote {directory}")


@model_app.command()
def stored() -> None:
    """Tell which demo model comes along: SHA-256, bytes and file of its stored form."""
    from worker.demo.packaged import STORED, content, digest

    try:
        found = content()
    except (WorkerError, OSError) as error:
        _fail(error)
    typer.echo(f"{digest(found)} {len(found)} {STORED}")


@model_app.command()
def inspect(
    directory: Annotated[Path, typer.Argument(help="Model directory.")],
    dtype: Annotated[DType, typer.Option(help="Arithmetic to serve it in.")] = DType.BFLOAT16,
    kv_cache_dtype: KVCache = KVCacheDType.AUTO,
    ep_size: Annotated[
        int, typer.Option(min=1, help="Ranks that share the routed experts between them.")
    ] = 1,
    draft_tokens: DraftTokens = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole report as one JSON object.")
    ] = False,
) -> None:
    """Check a checkpoint's headers; tell its geometry and storage, and the memory serving takes.

    Reads no weights, and takes seconds.
    """
    from worker.runner.inspection import as_text
    from worker.runner.inspection import inspect as run

    try:
        report = run(
            directory,
            dtype=dtype.value,
            ep_size=ep_size,
            draft_tokens=draft_tokens,
            kv_format=kv_cache_dtype.value,
        )
    except (WorkerError, OSError) as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        typer.echo(as_text(report))


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"flashplane-worker: {error}", err=True)
    sys.exit(1)
