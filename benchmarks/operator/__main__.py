"""`python -m benchmarks.operator`: the operator under thousands of replicas, one table.

Needs `tests` on PYTHONPATH for the API server; `make bench-operator` sees to it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Annotated

import typer
from support.embedded import running
from support.kube_server import KubeServer, assets

from benchmarks.operator import measures
from benchmarks.operator.kubelet import Kubelets
from benchmarks.operator.measures import Bench, Watcher
from benchmarks.operator.results import Figure, as_markdown
from benchmarks.operator.world import World
from controlplane.cluster import CRDS
from controlplane.crd import schema
from controlplane.kube import Kube
from controlplane.supervisor.valkey import Valkey


def figures(bench: Bench, *, quick: bool) -> Iterator[Figure]:
    """Run all measurements in order."""
    operator = bench.operator()
    try:
        yield from measures.settle(bench, operator)
    finally:
        operator.stop()
    operator = bench.operator()
    try:
        yield from measures.cold_start(bench, operator)
        yield from measures.steady(bench, operator, seconds=15 if quick else 120)
        yield from measures.changes(bench, operator, count=20 if quick else 200)
        yield from measures.losses(bench, operator, count=bench.world.endpoints // 10)
    finally:
        operator.stop()


def main(
    replicas: Annotated[int, typer.Option(min=10, help="Replicas of path bare.")] = 5_000,
    quick: Annotated[bool, typer.Option("--quick", help="200 replicas: about 2 minutes.")] = False,
) -> None:
    """Measure the operator against a real API server, with pods that run at once.

    The API server, the pods' stand-in and the operator share this machine, so times are an upper
    bound. With 5,000 replicas it takes about 20 minutes and 4 GB of memory.
    """
    folder = Path(tempfile.mkdtemp(prefix="operator-bench-"))
    server = KubeServer(folder, assets())
    measured: list[Figure] = []
    clients: list[Kube] = []

    def client() -> Kube:
        clients.append(Kube(server.kubeconfig))
        return clients[-1]

    try:
        server.start(manager=False)
        for definition in schema.definitions(rules=False):
            client().apply(CRDS, definition)
        world = World(200 if quick else replicas)
        world.write(client())
        kubelets, watcher = Kubelets(client()), Watcher(client())
        kubelets.start()
        watcher.start()
        log = folder / "operator.log"
        typer.echo(f"the operator's log is {log}", err=True)
        store = Valkey(folder / "store", folder)
        store.prepare()
        with running(store.command(), store.is_ready, SIGTERM, folder / "store.log"):
            bench = Bench(world, client(), watcher, server.kubeconfig, store.url, log)
            for figure in figures(bench, quick=quick):
                typer.echo(f"{figure.case}: {figure.value:.3g} {figure.unit}", err=True)
                measured.append(figure)
        for it in clients:
            it.close()
        watcher.stop()
        kubelets.stop()
    finally:
        server.stop()
    typer.echo(as_markdown(measured))


if __name__ == "__main__":
    typer.run(main)
