"""A zip in the layout of the released harness, for its leaderboard.

HASH_NAME_submission.zip
    NAME/NAME.jsonl         id, question (with its passage and choices), answer, response, answer_idx
    NAME/NAME_eval.jsonl    the same with evaluation{score, ...}
    NAME/NAME_score.txt     a line a task, and the unweighted mean

MMMU's medical subjects are not in these files: the released harness takes another tool's folders for them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.judging.stage import ScoredItem, scored_items
from evaluation.run_folder import RunFolder
from medix.errors import EvaluationError
from medix.files import write_atomically


def write_leaderboard_zip(folder: RunFolder, name: str, out: Path) -> Path:
    """Write the zip into `out`, with the paper's 17 tasks as far as they were run.

    Args:
        name: the model's; other characters than letters, digits and underscores become underscores.

    Raises:
        EvaluationError: a `--limit` was set, no task of the paper was run, or an item is unscored or was refused.
    """
    generate = folder.settings()["generate"]
    tasks = {task: facts for task, facts in generate["tasks"].items() if "released_name" in facts}
    items = [item for item in scored_items(folder) if item.row.task in tasks]
    unscored = sum(item.score is None for item in items)
    refused = sum(sum(facts.get("refused", {}).values()) for facts in tasks.values())
    faults = {
        f"it is limited to {generate['limit']} items a task": generate["limit"] is not None,
        "it is unfinished": not generate["complete"],
        "none of the paper's 17 tasks is in it": not items,
        f"{unscored} of {len(items)} items are unscored": unscored > 0,
        f"{refused} rows were refused": refused > 0,
    }
    found = [fault for fault, holds in faults.items() if holds]
    if found:
        raise EvaluationError(
            f"{folder.path} makes no leaderboard entry: {', '.join(found)}.",
            "Run `medix eval run --tasks paper` to its end, without --limit.",
        )
    name = re.sub(r"[^A-Za-z0-9_]+", "_", name)
    digest = hashlib.md5(f"{name}_submission".encode(), usedforsecurity=False).hexdigest()[:8]
    target = out / f"{digest}_{name}_submission.zip"

    def fill(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            rows = [_row(item, tasks[item.row.task]["released_name"]) for item in items]
            scored = [row | {"evaluation": _evaluation(item)} for row, item in zip(rows, items, strict=True)]
            for end, lines in (("", rows), ("_eval", scored)):
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
                archive.writestr(f"{name}/{name}{end}.jsonl", text)
            archive.writestr(f"{name}/{name}_score.txt", _scores(name, items))

    write_atomically(target, fill)
    return target


def _row(item: ScoredItem, task: str) -> dict[str, Any]:
    row = item.row
    return {
        "id": f"{task}_{row.place}",
        "question": row.whole_question,
        "answer": row.reference,
        "response": row.response,
        "answer_idx": row.letter or None,
    }


def _evaluation(item: ScoredItem) -> dict[str, Any]:
    # Reports are graded 0 to 5 there, questions 0 or 1.
    score = round((item.score or 0.0) * (5 if item.row.kind == "report" else 1), 4)
    return {"score": int(score) if score == int(score) else score, "decided_by": item.how}


def _scores(name: str, items: Iterable[ScoredItem]) -> str:
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for item in items:
        by_task[item.row.task].append(item.score or 0.0)
    means = {task: fmean(scores) for task, scores in by_task.items()}
    rows = [f"{task}: {100 * mean:.2f} %" for task, mean in means.items()]
    return "\n".join([f"Model: {name}", *rows, f"Overall: {100 * fmean(means.values()):.2f} %"]) + "\n"
