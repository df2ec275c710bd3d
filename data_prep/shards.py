"""Shards: one stretch of one source to one parquet file and one facts file; a kill leaves neither half written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.records import Record, Refusal
from data_prep.rows import PreparedRow, RowFacts, prepare_row
from data_prep.schema import ROW_SCHEMA, ROWS_PER_GROUP
from data_prep.settings import Settings
from data_prep.sources.reader import Chunk, Source
from data_prep.tokens import TokenCounter
from medix.prompts import load_prompt

_THUMBNAILS: Final = 8
"""Kept of a shard for the report."""


@dataclass(frozen=True)
class ShardTask:
    """The work of one shard. Picklable."""

    index: int
    source: Source
    chunk: Chunk
    evaluation: bool
    """Only facts are wanted: the rows are of a set to decontaminate against."""


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
        """Prepare one shard; returns the rows read. Its facts file appears last, and whole."""
        facts: list[RowFacts] = []
        refusals: list[Refusal] = []
        thumbnails: dict[str, str] = {}
        left_out: Counter[str] = Counter()
        path = rows_path(self._folder, task.index)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with pq.ParquetWriter(temporary, ROW_SCHEMA, compression="none") as writer:
            for group in self._groups(task, refusals, left_out):
                rows = self._finish(group, refusals)
                if rows and not task.evaluation:
                    writer.write_table(pa.Table.from_pylist([row for row, _, _ in rows], schema=ROW_SCHEMA))
                facts += [fact for _, fact, _ in rows]
                if len(thumbnails) < _THUMBNAILS:
                    thumbnails |= {fact.id: small for _, fact, small in rows[:1] if small}
        os.replace(temporary, path)
        result = ShardResult(task.index, task.evaluation, facts, refusals, dict(left_out), thumbnails)
        write_atomically(facts_path(self._folder, task.index), json.dumps(dataclasses.asdict(result)).encode())
        return len(facts) + len(refusals)

    def _groups(self, task: ShardTask, refusals: list[Refusal], left_out: Counter[str]) -> Iterator[list[PreparedRow]]:
        group: list[PreparedRow] = []
        for item in task.source.read(task.chunk):
            row: PreparedRow | Refusal | None = None
            if isinstance(item, Refusal):
                row = item
            elif split := task.source.prepared_split(item.split, task.evaluation):
                row = prepare_row(item, item.source or task.source.label, split, self._settings)
            if isinstance(row, Refusal):
                refusals.append(row)
            elif row is None:
                left_out[f"{task.source.label}/{item.split if isinstance(item, Record) else ''}"] += 1
            else:
                group.append(row)
            if len(group) == ROWS_PER_GROUP:
                yield group
                group = []
        if group:
            yield group

    def _finish(self, group: list[PreparedRow], refusals: list[Refusal]) -> list[tuple[dict[str, Any], RowFacts, str]]:
        """Rows with their tokens counted; those over the limit become refusals."""
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


def rows_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.parquet"


def facts_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.json"


def read_facts(folder: Path, index: int) -> ShardResult:
    """What `ShardWriter.write` left."""
    value = json.loads(facts_path(folder, index).read_text(encoding="utf-8"))
    value["facts"] = [RowFacts(**fact) for fact in value["facts"]]
    value["refusals"] = [Refusal(**refusal) for refusal in value["refusals"]]
    return ShardResult(**value)


def write_atomically(path: Path, data: bytes) -> None:
    """The file is there whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
