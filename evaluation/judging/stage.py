"""Stage 2: judges read what the rules could not decide. Resumable; no question is asked again for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.concurrency import Watch, run_bounded
from evaluation.judging.judge import Judge, Judgement, JudgeOptions
from evaluation.judging.rubrics import Case, RubricName, rubric_version
from evaluation.judging.rules import Decision, decide
from evaluation.prompting import with_options
from evaluation.run_folder import RunFolder
from medix.errors import ConfigError
from medix.files import open_inside
from medix.jsonl import JsonlWriter


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


def rubrics_of(
    tasks: Mapping[str, Mapping[str, Any]], judges: Sequence[JudgeOptions], rubric: RubricName | None = None
) -> dict[str, RubricName]:
    """Return each task's rubric: `rubric` in place of the tasks' own, or another protocol's wording.

    Raises:
        ConfigError: the wording has no text for reports, and a task has them.
    """
    wording = judges[0].wording if judges else None
    rubrics: dict[str, RubricName] = {name: rubric or task["judging"] for name, task in tasks.items()}
    if wording is None:
        return rubrics
    reports = [name for name, own in rubrics.items() if own == "report"]
    if reports and not wording.report:
        raise ConfigError(
            f"The judge prompts have no text for reports, which {reports[0]} needs.", "Add `report:` to the file."
        )
    return {
        name: own if own == "points" else "released_report" if own == "report" else "released"
        for name, own in rubrics.items()
    }


async def judge(
    folder: RunFolder, judges: Sequence[JudgeOptions], rubric: RubricName | None = None, failed_only: bool = False
) -> JudgeCounts:
    """Judge every response that needs it, by each judge in turn; the first is the one that scores.

    Args:
        rubric: instead of the tasks' own.
        failed_only: only what was tried before and failed.

    Raises:
        EvaluationError: a judge is gone, or the disk is full.
        ConfigError: another process judges the same folder, or a judge can not read a task's rubric.
    """
    started, counts = time.time(), JudgeCounts()
    rubrics = rubrics_of(folder.settings()["generate"]["tasks"], judges, rubric)
    for options in judges:
        options.refuse(rubrics.values())
    versions = {name: rubric_version(name, judges[0].wording) for name in set(rubrics.values())}
    settings = {"judges": [options.settings() for options in judges], "rubrics": rubrics, "versions": versions}
    folder.update_settings("judge", settings)
    with folder.judgements.writer() as writer:
        try:
            for options in judges:
                await _judge_with(options, folder, rubrics, failed_only, writer, counts)
        finally:
            folder.log_stage("judge", started, asdict(counts))
    return counts


async def _judge_with(
    options: JudgeOptions,
    folder: RunFolder,
    rubrics: Mapping[str, RubricName],
    failed_only: bool,
    writer: JsonlWriter,
    counts: JudgeCounts,
) -> None:
    asked, width = Judge(options), options.endpoint.max_in_flight

    async def work(job: _Job) -> tuple[_Job, Judgement]:
        images = []
        for name in job.row["images"] if options.sees_images else []:
            with open_inside(folder.images, f"{name}.jpg") as file:
                images.append(file.read())
        return job, await asked.judge(job.rubric, job.case, images)

    with Watch("judge", f"judge {options.model}", width) as watch:
        try:
            async for job, judgement in run_bounded(_jobs(options, folder, rubrics, failed_only, counts), work, width):
                head = {"key": job.key, "judge": options.model, "rubric": job.rubric, "task": job.row["task"]}
                writer.append({**head, **judgement.as_row(), "time": round(time.time(), 3)})
                counts.judged += judgement.error is None
                counts.failed += judgement.error is not None
                watch.note(judgement.fatal, (judgement.error or {}).get("detail", ""))
        finally:
            await asked.aclose()


def _jobs(
    options: JudgeOptions,
    folder: RunFolder,
    rubrics: Mapping[str, RubricName],
    failed_only: bool,
    counts: JudgeCounts,
) -> Iterator[_Job]:
    done: dict[str, bool] = {str(row["key"]): row["error"] is None for row in folder.judgements.latest()}
    for row in folder.current_rows():
        rubric = rubrics[row["task"]]
        decision = decide(row, not rubric.startswith("released")) if row["error"] is None else None
        if decision is None or decision.correct is not None:
            continue
        case = case_of(row, decision)
        key = options.key(rubric, case, row["images"])
        counts.wanted += 1
        if done.get(key, False):
            counts.already += 1
        elif not failed_only or key in done:
            done[key] = True  # an equal case of another item is judged once
            yield _Job(key, rubric, case, row)


def case_of(row: Mapping[str, Any], decision: Decision) -> Case:
    """Return the case that a generation row makes."""
    return Case(
        question=row.get("asked") or with_options(row["question"], row["choices"]),
        reference=f"{row['letter']}. {row['reference']}" if row["letter"] else row["reference"],
        candidate=decision.answer or "",
        reasoning=decision.reasoning,
        passage="" if row.get("asked") else row["passage"],
        aliases=tuple(row["aliases"]),
        points=tuple((str(criterion), float(worth)) for criterion, worth in row.get("points", ())),
    )
