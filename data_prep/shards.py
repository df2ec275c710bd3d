"""Shards: one stretch of one source to one parquet file and one facts file, in worker processes; then one file a split.

A kill leaves no half shard, and a run that is started again gives the bytes of one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.records import Refusal
from data_prep.row_schema import ROW_SCHEMA
from data_prep.rows import PreparedRow, RowFacts, prepare_row
from data_prep.settings import Settings
from data_prep.sources.reader import Chunk, Source
from data_prep.tokens import TokenCounter
from medix.errors import DataError
from medix.files import write_atomically
from medix.prompts import load_prompt

ROWS_PER_GROUP: Final = 32
"""Rows in a parquet row group: what a reader holds in memory at once."""
_THUMBNAILS: Final = 8
"""Kept of a shard for the report."""
WORKER_BYTES: Final = 3 * 2**30
"""Memory that a worker may ask for beside what it starts with: an image of 100 million pixels needs 1.2 GB."""
RowKey = tuple[int, int]
"""(shard, position of the row in it)."""


@dataclass(frozen=True)
class ShardTask:
    """The work of one shard. Picklable."""

    index: int
    source: Source
    chunk: Chunk
    evaluation: bool
    """Only facts are wanted: the rows are of a set to look for among the training rows."""


@dataclass(frozen=True)
class ShardResult:
    """Facts of a shard, as read back from its file."""

    index: int
    evaluation: bool
    facts: list[RowFacts]
    refusals: list[Refusal]
    left_out: dict[str, int]
    """Rows whose split is not prepared, by source and split."""
    thumbnails: dict[str, str]
    """Row id -> base64 JPEG, of the first few rows."""


class ShardWriter:
    """Prepares shards; one lives in each worker process."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._template = load_prompt(Path(settings.prompt))
        self._counter = TokenCounter(Path(settings.model)) if settings.model else None

    def write(self, task: ShardTask) -> int:
        """Prepare one shard; return the rows read. Its facts file appears last, and whole."""
        result = ShardResult(task.index, task.evaluation, [], [], {}, {})

        def write_rows(temporary: Path) -> None:
            with pq.ParquetWriter(temporary, ROW_SCHEMA, compression="none") as writer:
                for group in self._groups(task, result):
                    rows = self._finish(group, result.refusals)
                    if rows and not task.evaluation:
                        writer.write_table(pa.Table.from_pylist([row for row, _, _ in rows], schema=ROW_SCHEMA))
                    result.facts.extend(fact for _, fact, _ in rows)
                    if len(result.thumbnails) < _THUMBNAILS:
                        result.thumbnails.update({fact.id: small for _, fact, small in rows[:1] if small})

        write_atomically(shard_path(self._folder, task.index, "parquet"), write_rows)
        write_atomically(shard_path(self._folder, task.index, "json"), json.dumps(dataclasses.asdict(result)))
        return len(result.facts) + len(result.refusals)

    def _groups(self, task: ShardTask, result: ShardResult) -> Iterator[list[PreparedRow]]:
        """Yield the prepared rows in groups; note what is refused and what belongs to a split that is not prepared."""
        rows = self._rows(task, result)
        while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
            yield group

    def _rows(self, task: ShardTask, result: ShardResult) -> Iterator[PreparedRow]:
        for item in task.source.read(task.chunk):
            row: PreparedRow | Refusal
            if isinstance(item, Refusal):
                row = item
            elif split := task.source.prepared_split(item.split, task.evaluation):
                row = prepare_row(item, item.source or task.source.label, split, self._settings)
            else:
                name = f"{task.source.label}/{item.split}"
                result.left_out[name] = result.left_out.get(name, 0) + 1
                continue
            if isinstance(row, Refusal):
                result.refusals.append(row)
            else:
                yield row

    def _finish(self, group: list[PreparedRow], refusals: list[Refusal]) -> list[tuple[dict[str, Any], RowFacts, str]]:
        """Return the rows with their tokens counted; those over the limit become refusals."""
        rows = [row.sample.to_verl_row(0, self._template, 0) for row in group]
        counts = [0] * len(rows)
        if self._counter is not None:
            counts = self._counter.count([row["prompt"] for row in rows], [row.facts.sizes for row in group])
        limit = self._settings.max_prompt_tokens
        kept = []
        for row, prepared, n_tokens in zip(rows, group, counts, strict=True):
            if limit is not None and n_tokens > limit:
                detail = f"{n_tokens} tokens, the limit is {limit}"
                facts = prepared.facts
                refusals.append(Refusal(facts.source, facts.id, "too_many_tokens", detail, prepared.thumbnail))
                continue
            row["extra_info"]["n_tokens"] = n_tokens
            kept.append((row, dataclasses.replace(prepared.facts, n_tokens=n_tokens), prepared.thumbnail))
        return kept


def shard_path(folder: Path, index: int, suffix: str) -> Path:
    """Return the file of a shard's rows (`parquet`) or facts (`json`)."""
    return folder / f"{index:06d}.{suffix}"


def read_facts(folder: Path, index: int) -> ShardResult:
    """Return what `ShardWriter.write` left."""
    value = json.loads(shard_path(folder, index, "json").read_text(encoding="utf-8"))
    value["facts"] = [RowFacts(**fact) for fact in value["facts"]]
    value["refusals"] = [Refusal(**refusal) for refusal in value["refusals"]]
    return ShardResult(**value)


_writer: ShardWriter | None = None
"""The writer of this worker process."""


def run_shards(
    tasks: Sequence[ShardTask], folder: Path, settings: Settings, workers: int, done: Callable[[int], None]
) -> None:
    """Write every shard.

    Args:
        workers: processes, each bounded in memory; 0 works in this process, unbounded.
        done: is told the rows of each shard that is finished.
    """
    if workers < 1:
        writer = ShardWriter(folder, settings)
        for task in tasks:
            done(writer.write(task))
        return
    # Spawned, not forked: the caller may have threads of Arrow or torch running.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (folder, settings, os.getpid())) as pool:
        try:
            for future in as_completed([pool.submit(_write, task) for task in tasks]):
                done(future.result())
        except BrokenProcessPool as error:
            raise DataError(
                "A worker was killed, most often for want of memory.",
                "Run the command again with fewer --workers: finished shards are kept.",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(folder: Path, settings: Settings, parent: int) -> None:
    global _writer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _writer = ShardWriter(folder, settings)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # An image or a table that unpacks to more ends in a MemoryError, which refuses its row, not in a killed machine.
    resource.setrlimit(resource.RLIMIT_AS, (mapped + WORKER_BYTES, resource.RLIM_INFINITY))


def _die_with(parent: int) -> None:
    """Leave when the parent was killed: a worker would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _write(task: ShardTask) -> int:
    assert _writer is not None, "the pool's initializer sets it"
    return _writer.write(task)


def assemble(folder: Path, out: Path, results: Sequence[ShardResult], dropped: Mapping[RowKey, Any]) -> None:
    """Write one file a split: rows in the order of the sources, numbered, dropped ones left out."""
    splits = {f.split for r in results for place, f in enumerate(r.facts) if (r.index, place) not in dropped}
    for split in sorted(splits):
        write = functools.partial(_write_split, split=split, folder=folder, results=results, dropped=dropped)
        write_atomically(out / f"{split}.parquet", write)


def _write_split(
    path: Path, split: str, folder: Path, results: Sequence[ShardResult], dropped: Mapping[RowKey, Any]
) -> None:
    first = 0
    with pq.ParquetWriter(path, ROW_SCHEMA, compression="snappy") as writer:
        for result in results:
            wanted = [f.split == split and (result.index, n) not in dropped for n, f in enumerate(result.facts)]
            if not any(wanted):
                continue
            position = 0
            with pq.ParquetFile(shard_path(folder, result.index, "parquet"), pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                    here = batch.filter(pa.array(wanted[position : position + batch.num_rows]))
                    position += batch.num_rows
                    if here.num_rows:
                        writer.write_table(pa.Table.from_batches([_numbered(here, first)], schema=ROW_SCHEMA))
                        first += here.num_rows


def _numbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """Return the batch with `extra_info.index` counting on from `first`."""
    column = batch.schema.get_field_index("extra_info")
    info = batch.column(column)
    fields = list(info.type)
    index = pa.array(range(first, first + batch.num_rows), pa.int64())
    arrays = [index if field.name == "index" else info.field(n) for n, field in enumerate(fields)]
    return batch.set_column(column, batch.schema.field(column), pa.StructArray.from_arrays(arrays, fields=fields))
