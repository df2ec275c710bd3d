"""Stage 2: judges read what the rules could not decide. Resumable; no question is asked again for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.bounded import GiveUp, run_bounded
from evaluation.judging.cases import case_of, judgement_key, undecided
from evaluation.judging.judge import Judgement, JudgeOptions, RubricJudge
from evaluation.judging.rubrics import Case, RubricName
from evaluation.progress import Progress
from evaluation.row_file import RowWriter
from evaluation.run_folder import RunFolder


@dataclass
class JudgeCounts:
    """What one call of the stage did."""

    wanted: int = 0
    judged: int = 0
    already: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Job:
    key: str
    rubric: RubricName
    case: Case
    row: dict[str, Any]


async def judge(
    folder: RunFolder, judges: Sequence[JudgeOptions], rubric: RubricName | None = None, failed_only: bool = False
) -> JudgeCounts:
    """Judge every response that needs it, by each judge in turn; the first is the one that scores.

    Args:
        rubric: instead of the tasks' own.
        failed_only: only what was tried before and failed.

    Raises:
        EvaluationError: a judge is gone, the disk is full, or another process judges the same folder.
    """
    started, counts = time.time(), JudgeCounts()
    tasks = folder.settings()["generate"]["tasks"]
    rubrics: dict[str, RubricName] = {name: rubric or task["judging"] for name, task in tasks.items()}
    folder.update_settings("judge", {"judges": [options.settings() for options in judges], "rubrics": rubrics})
    with RowWriter(folder.judgements.path) as writer, Progress("judge") as progress:
        try:
            for options in judges:
                await _judge_with(options, folder, rubrics, failed_only, writer, counts, progress)
        finally:
            folder.log_stage("judge", started, asdict(counts))
    return counts


async def _judge_with(
    options: JudgeOptions,
    folder: RunFolder,
    rubrics: Mapping[str, RubricName],
    failed_only: bool,
    writer: RowWriter,
    counts: JudgeCounts,
    progress: Progress,
) -> None:
    asked = RubricJudge(options)
    give_up = GiveUp(f"judge {options.model}", options.endpoint.max_in_flight)

    async def work(job: _Job) -> tuple[_Job, Judgement]:
        names = job.row["images"] if options.sees_images else []
        images = [(folder.images / f"{name}.jpg").read_bytes() for name in names]
        return job, await asked.judge(job.rubric, job.case, images)

    try:
        jobs = _jobs(options.settings(), folder, rubrics, failed_only, counts)
        async for job, judgement in run_bounded(jobs, work, options.endpoint.max_in_flight):
            writer.append(_row(job, options.model, judgement))
            counts.judged += judgement.error is None
            counts.failed += judgement.error is not None
            progress.advance(counts.judged + counts.failed)
            give_up.note(judgement.fatal, (judgement.error or {}).get("detail", ""))
    finally:
        await asked.aclose()


def _jobs(
    settings: Mapping[str, Any],
    folder: RunFolder,
    rubrics: Mapping[str, RubricName],
    failed_only: bool,
    counts: JudgeCounts,
) -> Iterator[_Job]:
    done: dict[str, bool] = {str(row["key"]): row["error"] is None for row in folder.judgements.latest()}
    for row, decision in undecided(folder):
        case, rubric = case_of(row, decision), rubrics[row["task"]]
        key = judgement_key(settings, rubric, case, row["images"])
        counts.wanted += 1
        if done.get(key, False):
            counts.already += 1
        elif not failed_only or key in done:
            done[key] = True  # an equal case of another item is judged once
            yield _Job(key, rubric, case, row)


def _row(job: _Job, model: str, judgement: Judgement) -> dict[str, Any]:
    return {
        "key": job.key,
        "judge": model,
        "rubric": job.rubric,
        "task": job.row["task"],
        "score": judgement.score,
        "votes": [asdict(vote) for vote in judgement.votes],
        "error": judgement.error,
        "usage": judgement.usage,
        "latency_s": round(judgement.latency_s, 4),
        "time": round(time.time(), 3),
    }
