"""Stage 2: judges read what the rules could not decide. Resumable; no question is asked again for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.concurrency import Watch, run_bounded
from evaluation.judging import rubrics
from evaluation.judging.judge import Judge, JudgeOptions, judgement_key
from evaluation.judging.rubrics import Case, RubricName
from evaluation.judging.rules import Decision, decide
from evaluation.run_folder import Judgement, JudgeSettings, Row, RunFolder
from medix.errors import ConfigError
from medix.files import open_inside
from medix.jsonl import JsonlWriter

NOT_JUDGED = Judgement(None, (), {"kind": "not judged yet"}, {}, 0.0)


@dataclass
class JudgeCounts:
    """What one call of the stage did."""

    wanted: int = 0
    judged: int = 0
    already: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Job:
    """A case for a judge, with its line's further fields."""

    key: str
    rubric: RubricName
    case: Case
    images: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def rubrics_of(
    tasks: Mapping[str, Mapping[str, Any]], judges: Sequence[JudgeOptions], rubric: RubricName | None = None
) -> dict[str, RubricName]:
    """Return each task's rubric: `rubric` in place of the tasks' own, or another protocol's wording.

    Raises:
        ConfigError: the wording has no text for reports and a task has them, or a judge can not read a rubric.
    """
    wording = judges[0].wording if judges else None
    named: dict[str, RubricName] = {name: rubric or task["judging"] for name, task in tasks.items()}
    if wording is not None:
        reports = [name for name, own in named.items() if own == "report"]
        if reports and not wording.report:
            raise ConfigError(
                f"The judge prompts have no text for reports, which {reports[0]} needs.", "Add `report:` to the file."
            )
        released: dict[str, RubricName] = {"points": "points", "report": "released_report"}
        named = {name: released.get(own, "released") for name, own in named.items()}
    for options in judges:
        options.refuse(named.values())
    return named


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
    named = rubrics_of(folder.settings()["generate"]["tasks"], judges, rubric)
    versions = {name: rubrics.version(name, judges[0].wording) for name in set(named.values())}
    settings = {"judges": [options.settings() for options in judges], "rubrics": named, "versions": versions}
    folder.update_settings("judge", settings)
    with folder.judgements.writer() as writer:
        try:
            for options in judges:
                jobs = _jobs(options, folder, named, failed_only, counts)
                await judge_all(options, jobs, writer, counts, folder.images)
        finally:
            folder.log_stage("judge", started, asdict(counts))
    return counts


async def judge_all(
    options: JudgeOptions, jobs: Iterable[Job], writer: JsonlWriter, counts: JudgeCounts, images: Path
) -> None:
    """Have a judge read all cases and write its findings.

    Args:
        images: folder of the pictures that a judge is shown.
    """
    asked, width = Judge(options), options.endpoint.max_in_flight

    async def work(job: Job) -> tuple[Job, Judgement]:
        shown = []
        for name in job.images if options.sees_images else ():
            with open_inside(images, f"{name}.jpg") as file:
                shown.append(file.read())
        return job, await asked.judge(job.rubric, job.case, shown)

    with Watch("judge", f"judge {options.model}", width) as watch:
        try:
            async for job, judgement in run_bounded(jobs, work, width):
                writer.append({"key": job.key, **job.facts, **asdict(judgement), "time": round(time.time(), 3)})
                counts.judged += judgement.error is None
                counts.failed += judgement.error is not None
                watch.note(judgement.error)
        finally:
            await asked.aclose()


def _jobs(
    options: JudgeOptions,
    folder: RunFolder,
    named: Mapping[str, RubricName],
    failed_only: bool,
    counts: JudgeCounts,
) -> Iterator[Job]:
    done = {key: found.error is None for key, found in folder.judgements.latest()}
    for row in folder.current_rows():
        rubric = named[row.task]
        decision = decide(row, not rubric.startswith("released")) if row.error is None else None
        if decision is None or decision.correct is not None:
            continue
        case = Case.of(row, decision.answer or "", decision.reasoning)
        key = options.key(rubric, case, row.images)
        counts.wanted += 1
        if done.get(key, False):
            counts.already += 1
        elif not failed_only or key in done:
            done[key] = True  # an equal case of another item is judged once
            yield Job(key, rubric, case, row.images, {"judge": options.model, "rubric": rubric, "task": row.task})


@dataclass(frozen=True)
class ScoredItem:
    """One item of one run. `score` is in [0, 1], or None: unscored, for `reason`."""

    row: Row = field(repr=False)
    score: float | None
    how: str
    """`letter`, `exact`, `no_answer`, `judge`, or `unscored`."""
    reason: str
    decision: Decision | None
    findings: Mapping[str, Judgement] = field(default_factory=dict)
    """Judge -> what it found; the first judge scores, the others are for agreement."""

    @property
    def uid(self) -> tuple[str, str]:
        return self.row.task, self.row.id


def scored_items(folder: RunFolder) -> Iterator[ScoredItem]:
    """Yield every item of the current run in the order of its source, with its score or the reason why it has none."""
    unjudged: JudgeSettings = {"judges": [], "rubrics": {}, "versions": {}}
    judging = folder.settings().get("judge", unjudged)
    with folder.judgements.reader() as (_, read):
        for row in folder.current_rows():
            if row.error is not None:
                yield ScoredItem(row, None, "unscored", f"no response: {row.error['kind']}", None)
                continue
            rubric = judging["rubrics"].get(row.task, "")
            decision = decide(row, not rubric.startswith("released"))
            if decision.correct is not None:
                yield ScoredItem(row, float(decision.correct), decision.how, "", decision)
                continue
            case = Case.of(row, decision.answer or "", decision.reasoning)
            version = judging["versions"].get(rubric, "")
            findings = {
                judge["model"]: read(judgement_key(judge, rubric, version, case, row.images)) or NOT_JUDGED
                for judge in judging["judges"]
                if rubric
            }
            first = next(iter(findings.values()), NOT_JUDGED)
            reason = f"judge: {first.reason}" if findings and first.reason else first.reason
            how = "unscored" if first.score is None else "judge"
            yield ScoredItem(row, first.score, how, reason, decision, findings)
