"""Runs the cells of a sweep on all cores, or on a cluster, with dask.distributed.

The extra `sweep`, imported when a sweep begins. On this machine everything listens on loopback, and
no worker outlives us: each ends when its parent does, even if that is killed.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from overlay.errors import UsageError
from overlay.sim.report.report import Report
from overlay.sim.scenario.running import run
from overlay.sim.scenario.scenario import Scenario
from overlay.sim.sweep.sweep import Cell, Sweep

LOOPBACK = "127.0.0.1"
ANSWER_TIMEOUT = 10.0
"""Seconds that a scheduler has to answer (guess)."""
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""For a worker: Ctrl-C reaches the whole terminal, and it is for the parent to end its workers."""

Failure = str
"""Why a cell has no result."""


def require() -> None:
    """UsageError that names the extra when there is no dask.distributed."""
    try:
        import_module("distributed")
    except ImportError:
        text = "a sweep needs the extra `sweep`: install overlay-mesh[sweep] (dask.distributed)"
        raise UsageError(f"{text}; in a clone, `make install-sim` does that") from None


def compute(
    sweep: Sweep,
    cells: Sequence[Cell],
    version: Callable[[], str],
    *,
    scheduler: str | None,
    workers: int | None,
) -> Generator[tuple[Cell, dict[str, Any] | Failure], None, None]:
    """Every cell with what came of it, in the order in which they finish.

    `version`: says which overlay runs it, here and in each worker. `scheduler`: the address of a
    cluster, else this machine's cores are used, or so many `workers`. To stop early, close the
    iterator: all workers end.
    """
    dask = import_module("distributed")
    with _client(scheduler, workers or min(cores(), len(cells)), version) as client:
        futures = {}
        for cell in cells:  # pure=False: ours is the only say in what is computed again
            future = client.submit(
                run_cell,
                sweep.base,
                sweep.full_size,
                cell.scenario,
                cell.command,
                key=cell.key,
                pure=False,
            )
            futures[future] = cell
        for future in dask.as_completed(futures, loop=client.loop):
            cell = futures.pop(future)
            if future.status == "finished":
                yield cell, future.result()
            else:
                yield cell, _why(future)
            future.release()


def run_cell(name: str, full_size: int, scenario: Scenario, command: str) -> dict[str, Any]:
    """In a worker: run one cell; what is kept of it."""
    started_at = time.perf_counter()
    outcome = run(scenario, replay=command)
    seconds = time.perf_counter() - started_at
    report = Report(name, scenario, full_size, outcome, seconds, 0)
    answer = report.as_json()
    del answer["peak_rss"]  # of a process that has run other cells before
    return {**answer, "failure": report.failure(command), "seconds": seconds}


def cores() -> int:
    """The cores that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _why(future: Any) -> Failure:
    error = future.exception()
    return f"{type(error).__name__}: {error}" if error is not None else str(future.status)


@contextmanager
def _client(scheduler: str | None, workers: int, version: Callable[[], str]) -> Iterator[Any]:
    with _local(workers) if scheduler is None else _remote(scheduler, version) as client:
        yield client


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    dask = import_module("distributed")
    cluster = None
    try:
        cluster = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=LOOPBACK,
            # It listens for HTTP in any case; of its usual port a second sweep would be told.
            dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            worker_dashboard_address=None,
            memory_limit=0,  # a world takes what it takes
            silence_logs=logging.CRITICAL,
            preload=[DEAF],
        )
        client = dask.Client(cluster, set_as_default=False)
        yield client
        client.close()
    finally:
        _end(cluster)


def _end(cluster: Any) -> None:
    """End them without asking: they are idle, or run a cell whose result nobody waits for."""
    for nanny in cluster.workers.values() if cluster is not None else ():
        nanny.auto_restart = False
    for child in multiprocessing.active_children():
        child.kill()
    if cluster is not None:
        cluster.close()


@contextmanager
def _remote(address: str, version: Callable[[], str]) -> Iterator[Any]:
    dask = import_module("distributed")
    addressing = import_module("distributed.comm.addressing")
    try:
        addressing.get_address_host_port(address)  # a client of no address would linger
        client = dask.Client(address, timeout=ANSWER_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        text = f"--scheduler {address}: nobody answers there as a scheduler of dask does"
        raise UsageError(f"{text}: {str(error) or type(error).__name__}") from None
    try:
        _same_version(client, address, version)
        yield client
    finally:
        client.close()


def _same_version(client: Any, address: str, version: Callable[[], str]) -> None:
    """A cell is the same on each worker only if overlay is."""
    ours = version()
    if not client.nthreads():
        raise UsageError(f"--scheduler {address}: it has no workers")
    try:
        versions = client.run(version)
    except Exception as error:  # noqa: BLE001 (whatever unpickling a function raises over there)
        text = f"its workers cannot run overlay {ours}: install it there too"
        raise UsageError(f"--scheduler {address}: {text}: {error}") from None
    for worker, theirs in versions.items():
        if theirs != ours:
            text = f"the worker {worker} has overlay {theirs}, this is {ours}"
            raise UsageError(f"--scheduler {address}: {text}")
