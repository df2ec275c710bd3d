"""Running shards over processes, with no more in flight than there are workers."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from data_prep.settings import Settings
from data_prep.shards import ShardTask, ShardWriter
from medix.errors import DataError

_writer: ShardWriter | None = None
"""The writer of this worker process."""


def run_shards(
    tasks: Iterable[ShardTask], folder: Path, settings: Settings, workers: int, done: Callable[[int], None]
) -> None:
    """Write every shard. `done` is told the rows of each that is finished."""
    if workers <= 1:
        writer = ShardWriter(folder, settings)
        for task in tasks:
            done(writer.write(task))
        return
    # Spawned, not forked: the caller may have threads of Arrow or torch running.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (folder, settings, os.getpid())) as pool:
        waiting: set[Future[int]] = set()
        try:
            for task in tasks:
                waiting.add(pool.submit(_write, task))
                if len(waiting) >= 2 * workers:
                    waiting = _collect(waiting, done)
            while waiting:
                waiting = _collect(waiting, done)
        except BrokenProcessPool as error:
            fix = "run it again with fewer --workers: finished shards are kept"
            raise DataError("workers that finish", "one was killed, most often for want of memory", fix) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _collect(waiting: set[Future[int]], done: Callable[[int], None]) -> set[Future[int]]:
    finished, rest = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        done(future.result())
    return rest


def _start_worker(folder: Path, settings: Settings, parent: int) -> None:
    global _writer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _writer = ShardWriter(folder, settings)


def _die_with(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _write(task: ShardTask) -> int:
    assert _writer is not None, "the pool's initializer sets it"
    return _writer.write(task)
