"""`python -m worker.kernels.triton.resources`: what each kernel takes of a Hopper GPU.

Compiles every `Variant` ahead of time, which needs no GPU, and prints one table. Ends with 1 where
a kernel does not compile, spills registers or asks for more shared memory than there is.
"""

import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import triton
import typer
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompilationError

import worker.kernels.triton as backend
from worker.kernels.triton.variant import Variant

SM_90 = GPUTarget("cuda", 90, 32)
SHARED_BYTES = 227 << 10  # that a block may take of a Hopper multiprocessor
POINTER_BYTES = 16  # tensors of torch begin at multiples of it, and launches tell the compiler
COUNTED = {  # in PTX; each a pattern of instructions at the begin of a line
    "wgmma": r"wgmma\.mma_async",
    "mma": r"mma\.sync",
    "cp.async": r"cp\.async(?!\.(?:wait|commit))",
    "atomics": r"(?:atom|red)\.",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one compiled kernel. `local_bytes` of a thread are what registers were spilled to;
    `counts` are instructions of each kind of `COUNTED`, as written, not as executed."""

    variant: Variant
    registers: int
    local_bytes: int
    shared_bytes: int
    counts: dict[str, int]

    @property
    def problem(self) -> str:
        """Why it must not be shipped, or nothing."""
        if self.local_bytes:
            return f"spills {self.local_bytes} bytes"
        return "too much shared memory" if self.shared_bytes > SHARED_BYTES else ""


def all_variants(operation: str | None = None) -> list[Variant]:
    """Those that the backend's files list in `VARIANTS`, each once; only those that the file of
    `operation` lists, if given, which are none where it calls others' kernels or the reference's.
    """
    if operation is not None:
        return list(getattr(sys.modules[getattr(backend, operation).__module__], "VARIANTS", ()))
    names = [m.name for m in pkgutil.iter_modules(backend.__path__) if m.name != "resources"]
    files = [importlib.import_module(f"{backend.__name__}.{name}") for name in names]
    found: Iterator[Variant] = (v for file in files for v in getattr(file, "VARIANTS", ()))
    return list({v.name: v for v in found}.values())


def measure(variant: Variant) -> Resources:
    """Compile `variant` for sm_90. Raises CompilationError, or what else Triton raises."""
    constexprs = dict(variant.constexprs)
    signature = {n: variant.signature.get(n, "constexpr") for n in variant.kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", POINTER_BYTES]]
        for i, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    options = {"num_warps": variant.warps, "num_stages": variant.stages}
    if variant.max_registers is not None:
        options["maxnreg"] = variant.max_registers
    compiled = triton.compile(
        ASTSource(fn=variant.kernel, signature=signature, constexprs=constexprs, attrs=aligned),
        target=SM_90,
        options=options,
    )
    usage = _usage(compiled.asm["cubin"])
    counts = {
        name: len(re.findall(rf"^\s*(?:@!?%p\d+ )?{pattern}", compiled.asm["ptx"], re.MULTILINE))
        for name, pattern in COUNTED.items()
    }
    return Resources(
        variant, usage["REG"], usage["STACK"] + usage["LOCAL"], compiled.metadata.shared, counts
    )


def _usage(cubin: bytes) -> dict[str, int]:
    """What cuobjdump tells of a compiled kernel: REG, STACK, LOCAL and others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        told = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return {name: int(number) for name, number in re.findall(r"([A-Z]+):(\d+)", told)}


def lines(variants: Iterable[Variant]) -> Iterator[tuple[str, bool]]:
    """Rows of a Markdown table, each with whether it is as it should be."""
    head = ["kernel", "warps", "stages", "registers", "spilled", "shared", *COUNTED, ""]
    yield _row(head), True
    yield _row(["-"] * len(head)), True
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(_measured, variants):
            if isinstance(found, Resources):
                v = found.variant
                cells: list[Any] = [v.name, v.warps, v.stages, found.registers, found.local_bytes]
                cells += [found.shared_bytes, *found.counts.values(), found.problem]
                yield _row(cells), not found.problem
            else:
                yield _row(found), False


def _measured(variant: Variant) -> Resources | list[str]:
    try:
        return measure(variant)
    except (CompilationError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        return [variant.name, *["-"] * (4 + 1 + len(COUNTED)), f"does not compile: {reason}"]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(
    op: Annotated[
        str | None, typer.Option(help="Only the kernels of this operation, as the seam names it.")
    ] = None,
) -> None:
    """Compile the kernels as V4-Flash launches them, for Hopper, and tell what they take."""
    if op is not None and op not in backend.__all__:
        raise SystemExit(f"no operation {op!r}; known: {', '.join(backend.__all__)}")
    if triton.knobs.runtime.interpret:
        raise SystemExit("TRITON_INTERPRET is set: nothing is compiled under the interpreter")
    sound = True
    for line, is_sound in lines(all_variants(op)):
        typer.echo(line)
        sound = sound and is_sound
    raise typer.Exit(0 if sound else 1)


if __name__ == "__main__":
    typer.run(main)
