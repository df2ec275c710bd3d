"""Item by item: the score, who gave it, and why an item has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.judging.judge import judgement_key
from evaluation.judging.rules import Decision, decide
from evaluation.judging.stage import case_of
from evaluation.run_folder import JudgeSettings, RunFolder


@dataclass(frozen=True)
class JudgeFinding:
    """What one judge found on an item. `score` is None where it failed."""

    judge: str
    score: float | None
    reason: str
    """Why there is no score; empty where there is one."""
    votes: tuple[float, ...] = ()
    dimensions: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    raw: str = ""


@dataclass(frozen=True)
class ScoredItem:
    """One item of one run. `score` is in [0, 1], or None: unscored, for `reason`."""

    row: Mapping[str, Any] = field(repr=False)
    score: float | None
    how: str
    """`letter`, `exact`, `no_answer`, `judge`, or `unscored`."""
    reason: str
    decision: Decision | None
    findings: tuple[JudgeFinding, ...] = ()

    @property
    def uid(self) -> tuple[str, str]:
        return self.row["task"], self.row["id"]


def scored_items(folder: RunFolder) -> Iterator[ScoredItem]:
    """Yield every item of the current run in the order of its source.

    The first judge named scores; the others are for agreement.
    """
    unjudged: JudgeSettings = {"judges": [], "rubrics": {}, "versions": {}}
    judging = folder.settings().get("judge", unjudged)
    with folder.judgements.reader() as (_, read):
        for row in folder.current_rows():
            if row["error"] is not None:
                yield ScoredItem(row, None, "unscored", f"no response: {row['error']['kind']}", None)
                continue
            rubric = judging["rubrics"].get(row["task"], "")
            decision = decide(row, not rubric.startswith("released"))
            if decision.correct is not None:
                yield ScoredItem(row, float(decision.correct), decision.how, "", decision)
                continue
            version = judging["versions"].get(rubric, "")
            case = case_of(row, decision)
            findings = tuple(
                _finding(judge["model"], read(judgement_key(judge, rubric, version, case, row["images"])))
                for judge in judging["judges"]
                if rubric
            )
            score = findings[0].score if findings else None
            reason = "" if score is not None else f"judge: {findings[0].reason}" if findings else "not judged yet"
            yield ScoredItem(row, score, "unscored" if score is None else "judge", reason, decision, findings)


def _finding(judge: str, row: Mapping[str, Any] | None) -> JudgeFinding:
    if row is None:
        return JudgeFinding(judge, None, "not judged yet")
    error, votes = row["error"] or {}, row["votes"]
    first: Mapping[str, Any] = votes[0] if votes else {}
    return JudgeFinding(
        judge,
        row["score"],
        "" if row["score"] is not None else error.get("kind", "no score"),
        tuple(vote["score"] for vote in votes),
        first.get("dimensions", {}),
        first.get("why") or error.get("detail", ""),
        first.get("raw", ""),
    )
