"""What a judge is shown of a row, and under which content address its judgement stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.item import content_hash
from evaluation.judging.decide import Decision, decide
from evaluation.judging.rubrics import Case, RubricName, rubric_version
from evaluation.prompting import question_text_of
from evaluation.run_folder import RunFolder


def undecided(folder: RunFolder) -> Iterator[tuple[dict[str, Any], Decision]]:
    """Rows with a response on which the rules are unsure."""
    for row in folder.current_rows():
        if row["error"] is None:
            decision = decide(row)
            if decision.correct is None:
                yield row, decision


def case_of(row: Mapping[str, Any], decision: Decision) -> Case:
    """The case that a generation row makes."""
    return Case(
        question=question_text_of(row["question"], row["choices"]),
        reference=f"{row['letter']}. {row['reference']}" if row["letter"] else row["reference"],
        candidate=decision.answer or "",
        reasoning=decision.reasoning,
        passage=row["passage"],
        aliases=tuple(row["aliases"]),
    )


def judgement_key(settings: Mapping[str, Any], rubric: RubricName, case: Case, images: list[str]) -> str:
    """Made of the case as shown, the judge's settings (`run.json`) and the wording of the prompt."""
    texts = (case.question, case.reference, case.candidate, case.aliases)
    # The verdict prompt shows neither reasoning nor passage, so equal answers share one judgement.
    extra = () if rubric == "verdict" else (case.reasoning, case.passage)
    shown = images if settings["sees_images"] else ()
    return content_hash(dict(settings), rubric, rubric_version(rubric), texts, extra, shown)
