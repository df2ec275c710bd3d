"""Item by item: the score, who gave it, and why an item has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.judging.cases import case_of, judgement_key
from evaluation.judging.decide import Decision, decide
from evaluation.run_folder import RunFolder


@dataclass(frozen=True)
class JudgeFinding:
    """What one judge found on an item. `score` is None where it failed."""

    judge: str
    score: float | None
    reason: str
    """Why there is no score; empty where there is one."""
    votes: tuple[float, ...]
    dimensions: Mapping[str, float | None]
    why: str
    raw: str


@dataclass(frozen=True)
class ScoredItem:
    """One item of one run. `score` is in [0, 1], or None: unscored, for `reason`."""

    row: Mapping[str, Any] = field(repr=False)
    score: float | None
    how: str
    """`letter`, `exact`, `no_answer`, `judge`, or `unscored`."""
    reason: str
    decision: Decision | None
    findings: tuple[JudgeFinding, ...]

    @property
    def uid(self) -> tuple[str, str]:
        return self.row["task"], self.row["id"]


def scored_items(folder: RunFolder) -> Iterator[ScoredItem]:
    """Every item of the current run, in the order asked. The first judge named scores; the others are for agreement."""
    settings = folder.settings()
    judging = settings.get("judge", {"judges": [], "rubrics": {}})
    offsets = folder.judgements.offsets()
    with _Reader(folder) as reader:
        for row in folder.current_rows():
            if row["error"] is not None:
                yield ScoredItem(row, None, "unscored", f"no response: {row['error']['kind']}", None, ())
                continue
            decision = decide(row)
            if decision.correct is not None:
                yield ScoredItem(row, float(decision.correct), decision.how, "", decision, ())
                continue
            rubric = judging["rubrics"].get(row["task"], "")
            findings = []
            for judge in judging["judges"] if rubric else ():
                key = judgement_key(judge, rubric, case_of(row, decision), row["images"])
                findings.append(_finding(judge["model"], reader.read(offsets.get(key))))
            yield _judged(row, decision, tuple(findings))


def _judged(row: Mapping[str, Any], decision: Decision, findings: tuple[JudgeFinding, ...]) -> ScoredItem:
    if not findings:
        return ScoredItem(row, None, "unscored", "not judged yet", decision, ())
    first = findings[0]
    if first.score is None:
        return ScoredItem(row, None, "unscored", f"judge: {first.reason}", decision, findings)
    return ScoredItem(row, first.score, "judge", "", decision, findings)


def _finding(judge: str, row: Mapping[str, Any] | None) -> JudgeFinding:
    if row is None:
        return JudgeFinding(judge, None, "not judged yet", (), {}, "", "")
    votes = row["votes"]
    first = votes[0] if votes else {}
    return JudgeFinding(
        judge,
        row["score"],
        row["error"]["kind"] if row["error"] else "",
        tuple(vote["score"] for vote in votes),
        first.get("dimensions", {}),
        first.get("why", "") or (row["error"] or {}).get("detail", ""),
        first.get("raw", ""),
    )


class _Reader:
    """Judgement rows by their place in the file, so that they need not all be in memory."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.judgements.path

    def __enter__(self) -> _Reader:
        self._file = self._path.open("rb") if self._path.exists() else None
        return self

    def read(self, offset: int | None) -> dict[str, Any] | None:
        if offset is None or self._file is None:
            return None
        import json

        self._file.seek(offset)
        return dict(json.loads(self._file.readline()))

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
