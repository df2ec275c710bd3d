"""`medix prepare`: plan, shards, duplicates, files, manifest; each stage can be killed and gone on with."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_prep import dedupe, fingerprints, manifest, report
from data_prep.records import Record, Refusal
from data_prep.settings import Settings
from data_prep.shards import ShardResult, ShardTask, assemble, read_facts, run_shards, shard_path
from data_prep.sources import Source, check_apart, open_source
from medix.errors import ConfigError, DataError
from medix.files import hold_folder, write_atomically
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
    """Prepare sources into `out`; return the manifest.

    Args:
        sources: specifications, see `data_prep.sources.open_source`.
        workers: processes; as many as there are processors by default, 0 works in this process.
        max_quarantine: share of the rows of the sources, and of each evaluation set, that may be damaged.
        overwrite: start over if `out` holds a set made with other settings or from other files.
        options: the other fields of `data_prep.settings.Settings`.

    Raises:
        ConfigError: a setting is wrong, or `out` holds another set.
        DataError: too many rows are damaged, or none is left.

    Example:
        >>> import tempfile
        >>> found = prepare(["sample"], tempfile.mkdtemp(), workers=0, limit=2)
        >>> found["splits"]["train"]["rows"], found["splits"]["val"]["rows"]
        (2, 2)
    """
    settings = Settings(sources=tuple(sources), **options)
    load_prompt(Path(settings.prompt))
    opened, against = ([open_source(one) for one in stated] for stated in (settings.sources, settings.against))
    out = Path(out)
    for source in [*opened, *against]:
        check_apart(out, source)
    with hold_folder(out, "prepare"):
        asked = manifest.inputs(settings, [*opened, *against])
        if (done := _finished(out, asked, overwrite)) is not None:
            return done
        work = _work_folder(out, asked)
        tasks = list(_plan(settings, opened, against))
        _run(tasks, work, settings, workers)
        results = [read_facts(work, task.index) for task in tasks]
        _check_evaluation(tasks, results, max_quarantine)
        result = _finish(settings, asked, results, work, out, max_quarantine)
        shutil.rmtree(work)
        return result


def count(sources: Sequence[str], **options: Any) -> dict[str, Any]:
    """Return what `--dry-run` prints: what was taken for what, and rows by source and split. Opens no image."""
    settings = Settings(sources=tuple(sources), **options)
    rows: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    opened = [open_source(one) for one in settings.sources]
    for source in opened:
        for chunk in source.chunks(settings.shard_rows, settings.limit):
            for item in source.read(chunk):
                if isinstance(item, Record):
                    rows[f"{source.label}/{item.split}"] += 1
                else:
                    refused[item.reason] += item.rows
    facts = [manifest.source_facts(source) for source in opened]
    return {"rows": dict(sorted(rows.items())), "refused": dict(sorted(refused.items())), "sources": facts}


def _finished(out: Path, asked: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Return the manifest of the same set, if it is already there."""
    if overwrite or not (out / manifest.NAME).exists():
        return None
    found = manifest.read(out)
    if all(found.get(key) == value for key, value in asked.items()):
        return manifest.verify(out)
    raise ConfigError(f"{out} holds another set.", "Name an empty --out, or add --overwrite.")


def _work_folder(out: Path, asked: dict[str, Any]) -> Path:
    """Return the folder of the shards, emptied if they were made with other settings or from other files."""
    work = out / WORK
    made_of = fingerprints.sha256(json.dumps(asked).encode())
    mark = work / "fingerprint"
    if mark.is_file() and mark.read_text() == made_of:
        return work
    shutil.rmtree(work, ignore_errors=True)
    write_atomically(mark, made_of)
    return work


def _plan(settings: Settings, sources: Sequence[Source], against: Sequence[Source]) -> Iterator[ShardTask]:
    index = itertools.count()
    for evaluation, group in ((False, sources), (True, against)):
        for source in group:
            for chunk in source.chunks(settings.shard_rows, None if evaluation else settings.limit):
                yield ShardTask(next(index), source, chunk, evaluation)


def _run(tasks: list[ShardTask], work: Path, settings: Settings, workers: int | None) -> None:
    open_tasks = [task for task in tasks if not shard_path(work, task.index, "json").exists()]
    if workers is None:
        workers = min(os.cpu_count() or 1, len(open_tasks))
    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), *times)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        total, left = (sum(task.chunk.rows for task in some) for some in (tasks, open_tasks))
        bar = progress.add_task("", total=total, completed=total - left)
        run_shards(open_tasks, work, settings, workers, lambda rows: progress.advance(bar, rows))


def _check_evaluation(tasks: Sequence[ShardTask], results: Sequence[ShardResult], allowed: float) -> None:
    """Refuse to certify training rows against an evaluation set that could not be read."""
    read: Counter[Path] = Counter()
    reasons: dict[Path, Counter[str]] = defaultdict(Counter)
    for task, result in zip(tasks, results, strict=True):
        if task.evaluation:
            reasons[task.source.root] += manifest.rows_by_reason(result.refusals)
            read[task.source.root] += len(result.facts)
    for root, refused in reasons.items():
        rows = read[root] + refused.total()
        if refused.total() > allowed * rows:
            raise DataError(
                f"{refused.total()} of {rows} rows of the evaluation set {root} cannot be compared with: "
                f"{_summary(refused)}.",
                "Mend the path in --against (and ?image_root=), or raise --max-quarantine.",
            )


def _summary(reasons: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.most_common(5))


def _finish(
    settings: Settings,
    asked: dict[str, Any],
    results: list[ShardResult],
    work: Path,
    out: Path,
    max_quarantine: float,
) -> dict[str, Any]:
    found = dedupe.find(results, settings)
    own = [result for result in results if not result.evaluation]
    refusals = [*(refusal for result in own for refusal in result.refusals), *found.dropped.values()]
    quarantine = "".join(json.dumps(r.as_json(), ensure_ascii=False) + "\n" for r in refusals)
    write_atomically(out / "quarantine.jsonl", quarantine)
    kept = [
        fact
        for result in own
        for position, fact in enumerate(result.facts)
        if (result.index, position) not in found.dropped
    ]
    left_out = sum((Counter(result.left_out) for result in own), Counter[str]())
    _check_threshold(refusals, len(kept), left_out, max_quarantine, out)
    # From here on `out` is no finished set until the new manifest stands.
    for name in (manifest.NAME, "train.parquet", "val.parquet"):
        (out / name).unlink(missing_ok=True)
    assemble(work, out, own, found.dropped)
    content = manifest.build(asked, kept, refusals, left_out, found.report, out)
    report.write_report(content, own, refusals, out)
    content["report"] = manifest.file_facts(out / report.NAME, out)
    write_atomically(out / manifest.NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def _check_threshold(refusals: Sequence[Refusal], kept: int, left_out: Counter[str], allowed: float, out: Path) -> None:
    reasons = manifest.rows_by_reason(refusals)
    damaged = sum(n for reason, n in reasons.items() if reason not in DAMAGE_EXEMPT)
    read = kept + reasons.total()
    first = next((r for r in refusals if r.reason not in DAMAGE_EXEMPT), None)
    example = f" The first is row {first.id}: {first.detail}." if first else ""
    if damaged > allowed * read:
        raise DataError(
            f"{damaged} of {read} rows are damaged, over {allowed:.1%} ({_summary(reasons)}).{example}",
            f"Read {out / 'quarantine.jsonl'} and mend the source (?image_root= names a folder of images), or raise "
            "--max-quarantine; finished work is kept.",
        )
    if not kept:
        parts = ", ".join(f"{n} of {name}" for name, n in left_out.items())
        raise DataError(
            f"No row is left: {_summary(reasons) or 'nothing refused'}; rows of parts that are not prepared: "
            f"{parts or 'none'}.",
            "Read the quarantine, or name the parts to prepare with ?splits=.",
        )
