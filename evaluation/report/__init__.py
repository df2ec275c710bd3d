"""Stage 4: one self-contained HTML file with every item, its image, response, verdicts and reasons.

What models, judges and data sets wrote enters the page as JSON and is shown by `textContent` only; the page has a
content security policy that allows its own script by hash and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from evaluation.judging.stage import ScoredItem, scored_items
from evaluation.run_folder import Judgement, RunFolder, Vote
from evaluation.score import lines
from evaluation.statistics import interval, percent
from medix.errors import DataError, EvaluationError
from medix.files import open_inside, read_mapping, write_atomically
from medix.pages import environment

HERE = Path(__file__).resolve().parent


def write_report(folder: RunFolder) -> Path:
    """Write `evaluation.html`; rows are streamed, so memory does not grow with their number.

    Raises:
        EvaluationError: nothing was scored here yet, or `scores.json` is damaged.
    """
    started, scores = time.time(), folder.path / "scores.json"
    again = f"Run `medix eval score --out {folder.path}`."
    if not scores.is_file():
        raise EvaluationError(f"There are no scores in {folder.path}.", again)
    place = folder.path.resolve()
    run = place.parent.parent if place.parent.name == "eval" else None
    templates = environment(HERE)
    templates.filters["percent"] = percent
    script = (HERE / "report.js").read_text(encoding="utf-8")
    try:
        result = read_mapping(scores)
        model = str(result["settings"]["generate"]["model"]["model"])
        stream = templates.get_template("report.html.j2").stream(
            result=result,
            title=f"{run.name}, {place.name}: {model}" if run else model,
            back="../../report.html" if run and (run / "config.yaml").is_file() else "",
            lines=list(lines(result)),
            interval=interval,
            items=map(_item, scored_items(folder)),
            images=_images(folder),
            script=script,
            own_style=(HERE / "report.css").read_text(encoding="utf-8"),
        )
        target = folder.path / "evaluation.html"
        write_atomically(target, lambda part: stream.dump(str(part), encoding="utf-8", errors="replace"))
    except (TemplateError, LookupError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{scores} is damaged ({type(error).__name__}: {error}).", again) from error
    folder.log_stage("report", started, {})
    return target


def _item(item: ScoredItem) -> dict[str, Any]:
    row, decision = item.row, item.decision
    scores = {found.score for found in item.findings.values() if found.score is not None}
    votes_differ = any(len({vote.score for vote in found.votes}) > 1 for found in item.findings.values())
    names = ("task", "id", "kind", "question", "passage", "choices", "aliases", "images")
    return {
        **{name: getattr(row, name) for name in names},
        "modality": row.modality or "",
        "reference": row.shown_reference,
        "response": row.response or "",
        "answer": decision.answer if decision else None,
        "reasoning": decision.reasoning if decision else "",
        "problems": decision.problems if decision else [],
        "score": item.score,
        "how": item.how,
        "reason": item.reason,
        "disagree": len(scores) > 1 or (votes_differ and row.kind != "points"),
        "findings": [_finding(judge, found) for judge, found in item.findings.items()],
    }


def _finding(judge: str, found: Judgement) -> dict[str, Any]:
    first = found.votes[0] if found.votes else Vote(0.0, "")
    return {
        "judge": judge,
        "score": found.score,
        "reason": found.reason,
        "votes": [vote.score for vote in found.votes],
        "dimensions": first.dimensions,
        "why": first.why or (found.error or {}).get("detail", ""),
        "raw": first.raw[:2000],
    }


def _images(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Yield (name, data address) of each kept thumbnail that the current run shows, once."""
    seen: set[str] = set()
    for row in folder.current_rows():
        for name in set(row.images) - seen:
            seen.add(name)
            try:
                with open_inside(folder.images, f"{name}.jpg") as file:
                    data = file.read()
            except (OSError, DataError):
                continue  # The page says where a picture would be.
            yield name, "data:image/jpeg;base64," + base64.b64encode(data).decode()
