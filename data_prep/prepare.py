"""`medix prepare`: plan, shards, duplicates, files, manifest; each stage can be killed and gone on with."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_prep import dedupe, hashes, manifest, report
from data_prep.assemble import assemble
from data_prep.pool import run_shards
from data_prep.records import Record, Refusal
from data_prep.report import write_report
from data_prep.settings import Settings
from data_prep.shards import ShardResult, ShardTask, facts_path, read_facts, write_atomically
from data_prep.sources import Source, open_source
from medix.errors import ConfigError, DataError
from medix.prompts import load_prompt

WORK: Final = ".work"
DAMAGE_EXEMPT: Final = frozenset({"duplicate_row", "contaminated", "too_many_tokens"})
"""Reasons that are a choice, not damage: they do not count towards the quarantine's threshold."""


def prepare(
    sources: Sequence[str],
    out: Path | str,
    *,
    workers: int | None = None,
    max_quarantine: float = 0.05,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Prepare sources into `out`; returns the manifest.

    Args:
        sources: specifications, see `data_prep.sources.open_source`.
        workers: processes; as many as there are processors by default, one for a set of one shard.
        max_quarantine: share of the rows read that may be damaged before the command fails.
        overwrite: start over where `out` holds a set made with other settings or from other files.
        options: the other fields of `data_prep.settings.Settings`.

    Raises:
        ConfigError: a setting is wrong, or `out` holds another set.
        DataError: too many rows are damaged, or none is left.
    """
    settings = Settings(sources=tuple(sources), **options)
    load_prompt(Path(settings.prompt))
    opened = [(spec, open_source(spec)) for spec in settings.sources]
    against = [(spec, open_source(spec)) for spec in settings.against]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        facts = [manifest.source_facts(spec, source) for spec, source in [*opened, *against]]
        if (done := _finished(out, settings, facts, overwrite)) is not None:
            return done
        work = _work_folder(out, settings, facts)
        tasks = list(_plan(settings, opened, against))
        _run(tasks, work, settings, workers)
        results = [read_facts(work, task.index) for task in tasks]
        result = _finish(settings, facts, results, work, out, max_quarantine)
        shutil.rmtree(work)
        return result


def count(sources: Sequence[str], **options: Any) -> dict[str, Any]:
    """What `--dry-run` prints: rows by source and split, and the rows that no record can be made of. Opens no image."""
    settings = Settings(sources=tuple(sources), **options)
    rows: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for spec in settings.sources:
        source = open_source(spec)
        for chunk in source.chunks(settings.shard_rows, settings.limit):
            for item in source.read(chunk):
                if isinstance(item, Record):
                    rows[f"{source.label}/{item.split}"] += 1
                else:
                    refused[item.reason] += 1
    return {"rows": dict(sorted(rows.items())), "refused": dict(sorted(refused.items()))}


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                "one medix prepare at a time", f"another in {out}", "wait for it, or use another --out"
            ) from error
        yield
        (out / ".lock").unlink(missing_ok=True)


def _finished(out: Path, settings: Settings, sources: list[dict[str, Any]], overwrite: bool) -> dict[str, Any] | None:
    """The manifest of the same set, if it is already there."""
    path = out / manifest.NAME
    if not path.exists():
        return None
    if overwrite:
        return None
    found = manifest.read(out)
    wanted = json.loads(json.dumps(manifest.inputs(settings) | {"sources": sources}))
    if all(found[key] == wanted[key] for key in wanted):
        return manifest.verify(out)
    raise ConfigError("an empty --out, or one with this very set", f"another set in {out}", "add --overwrite")


def _work_folder(out: Path, settings: Settings, sources: list[dict[str, Any]]) -> Path:
    """Folder of the shards, emptied if they were made with other settings or from other files."""
    work = out / WORK
    made_of = json.dumps([manifest.inputs(settings), sources]).encode()
    mark = work / "fingerprint"
    if mark.is_file() and mark.read_text() == hashes.sha256(made_of):
        return work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    write_atomically(mark, hashes.sha256(made_of).encode())
    return work


def _plan(
    settings: Settings, sources: Sequence[tuple[str, Source]], against: Sequence[tuple[str, Source]]
) -> Iterator[ShardTask]:
    index = 0
    for evaluation, group in ((False, sources), (True, against)):
        for _, source in group:
            for chunk in source.chunks(settings.shard_rows, None if evaluation else settings.limit):
                yield ShardTask(index, source, chunk, evaluation)
                index += 1


def _run(tasks: list[ShardTask], work: Path, settings: Settings, workers: int | None) -> None:
    open_tasks = [task for task in tasks if not facts_path(work, task.index).exists()]
    if workers is None:
        workers = min(os.cpu_count() or 1, len(open_tasks))
    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), *times)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=sum(task.chunk.rows for task in tasks))
        progress.advance(bar, sum(task.chunk.rows for task in tasks) - sum(task.chunk.rows for task in open_tasks))
        run_shards(open_tasks, work, settings, workers, lambda rows: progress.advance(bar, rows))


def _finish(
    settings: Settings,
    sources: list[dict[str, Any]],
    results: list[ShardResult],
    work: Path,
    out: Path,
    max_quarantine: float,
) -> dict[str, Any]:
    found = dedupe.find(results, settings)
    rows = [r for result in results if not result.evaluation for r in result.refusals]
    refusals = [*rows, *found.dropped.values()]
    quarantine = "".join(json.dumps(r.as_json(), ensure_ascii=False) + "\n" for r in refusals)
    write_atomically(out / "quarantine.jsonl", quarantine.encode())
    kept = [
        fact
        for result in results
        if not result.evaluation
        for position, fact in enumerate(result.facts)
        if (result.index, position) not in found.dropped
    ]
    _check_threshold(refusals, len(kept), max_quarantine, out)
    # From here on `out` is no finished set until the new manifest stands.
    (out / manifest.NAME).unlink(missing_ok=True)
    assemble(work, out, results, found.dropped)
    left_out = sum((Counter(result.left_out) for result in results if not result.evaluation), Counter[str]())
    content = manifest.build(settings, sources, kept, refusals, left_out, found.report, out)
    write_report(content, results, refusals, out)
    content["report"] = manifest.file_facts(out / report.NAME, out)
    manifest.write(content, out)
    return content


def _check_threshold(refusals: Sequence[Refusal], kept: int, allowed: float, out: Path) -> None:
    reasons = manifest.rows_by_reason(refusals)
    damaged = sum(n for reason, n in reasons.items() if reason not in DAMAGE_EXEMPT)
    read = kept + reasons.total()
    summary = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common(5)) or "no rows in the sources"
    if damaged > allowed * read:
        raise DataError(
            f"at most {allowed:.1%} of the rows damaged",
            f"{damaged} of {read} ({summary})",
            f"read {out / 'quarantine.jsonl'}, mend the source, or raise --max-quarantine; finished work is kept",
        )
    if not kept:
        raise DataError("at least one row to keep", summary, f"read {out / 'quarantine.jsonl'}")
