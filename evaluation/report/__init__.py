"""Stage 4: one self-contained HTML file with every item, its image, response, verdicts and reasons.

What models, judges and data sets wrote enters the page as JSON and is shown by `textContent` only; the page has a
content security policy that allows its own script by hash and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.run_folder import RunFolder
from evaluation.score import interval, percent
from evaluation.scored import ScoredItem, scored_items
from medix.errors import EvaluationError

HERE = Path(__file__).resolve().parent


def write_report(folder: RunFolder) -> Path:
    """Write `report.html`; rows are streamed, so memory does not grow with their number.

    Raises:
        EvaluationError: nothing was scored here yet.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    started = time.time()
    scores = folder.path / "scores.json"
    if not scores.is_file():
        raise EvaluationError("scores in the run folder", f"no {scores}", f"run `medix eval score --out {folder.path}`")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(percent=percent, script_json=script_json)
    environment.globals["interval"] = interval
    script = (HERE / "report.js").read_text(encoding="utf-8")
    stream = environment.get_template("report.html.j2").stream(
        result=json.loads(scores.read_text(encoding="utf-8")),
        items=(_item(item) for item in scored_items(folder)),
        images=_images(folder),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(HERE / "report.css").read_text(encoding="utf-8"),
    )
    target, temporary = folder.path / "report.html", folder.path / f".report.html.{os.getpid()}"
    try:
        stream.dump(str(temporary), encoding="utf-8", errors="replace")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EvaluationError(f"room for {target}", error.strerror or str(error), "free some, run again") from error
    folder.log_stage("report", started, {})
    return target


def script_json(value: Any) -> Any:
    """JSON that can stand inside a script element: nothing in it can close the element or open a comment."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _item(item: ScoredItem) -> dict[str, Any]:
    row, decision = item.row, item.decision
    scores = {finding.score for finding in item.findings if finding.score is not None}
    return {
        "task": row["task"],
        "id": row["id"],
        "kind": row["kind"],
        "modality": row["modality"] or "",
        "question": row["question"],
        "passage": row["passage"],
        "choices": row["choices"],
        "reference": f"{row['letter']}. {row['reference']}" if row["letter"] else row["reference"],
        "aliases": row["aliases"],
        "images": row["images"],
        "response": row["response"] or "",
        "answer": decision.answer if decision else None,
        "reasoning": decision.reasoning if decision else "",
        "problems": list(decision.problems) if decision else [],
        "score": item.score,
        "how": item.how,
        "reason": item.reason,
        "disagree": len(scores) > 1 or any(len(set(finding.votes)) > 1 for finding in item.findings),
        "findings": [
            {
                "judge": f.judge,
                "score": f.score,
                "reason": f.reason,
                "votes": list(f.votes),
                "dimensions": dict(f.dimensions),
                "why": f.why,
                "raw": f.raw[:2000],
            }
            for f in item.findings
        ],
    }


def _images(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """(name, data address) of each kept thumbnail that the current run shows, once."""
    seen: set[str] = set()
    for row in folder.current_rows():
        for name in row["images"]:
            file = folder.images / f"{name}.jpg"
            if name not in seen and file.is_file():
                seen.add(name)
                yield name, "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()
