"""A zip in the layout of the released harness, for its leaderboard.

HASH_NAME_submission.zip
    NAME/NAME.jsonl         id, question, answer, response, answer_idx
    NAME/NAME_eval.jsonl    the same with evaluation{score, ...}
    NAME/NAME_score.txt     one line a task, and the unweighted mean
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.run_folder import RunFolder
from evaluation.scored import ScoredItem, scored_items
from medix.errors import EvaluationError


def write_leaderboard_zip(folder: RunFolder, name: str, out: Path) -> Path:
    """Write the zip anew into `out`; only tasks of the paper are in it, and only if all their items are scored.

    Raises:
        EvaluationError: nothing of the leaderboard's tasks was evaluated, or an item is unscored.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    tasks = folder.settings()["generate"]["tasks"]
    items = [item for item in scored_items(folder) if tasks[item.row["task"]]["group"] in ("llm", "vlm", "mmmu")]
    unscored = sum(item.score is None for item in items)
    if not items or unscored:
        found = f"{unscored} of {len(items)} unscored" if items else "none of its tasks"
        raise EvaluationError("a whole evaluation for the leaderboard", found, "run `medix eval run --tasks all`")
    digest = hashlib.md5(f"{name}_submission".encode(), usedforsecurity=False).hexdigest()[:8]
    target = out / f"{digest}_{name}_submission.zip"
    out.mkdir(parents=True, exist_ok=True)
    numbered = list(_numbered(items))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/{name}.jsonl", _lines(_generation(row_id, item) for row_id, item in numbered))
        archive.writestr(f"{name}/{name}_eval.jsonl", _lines(_evaluation(row_id, item) for row_id, item in numbered))
        archive.writestr(f"{name}/{name}_score.txt", _scores(items))
    return target


def _numbered(items: list[ScoredItem]) -> Iterator[tuple[str, ScoredItem]]:
    """Ids as the layout has them: the task and the item's number within it."""
    counts: dict[str, int] = {}
    for item in items:
        task = item.row["task"]
        yield f"{task}_{counts.get(task, 0)}", item
        counts[task] = counts.get(task, 0) + 1


def _generation(row_id: str, item: ScoredItem) -> dict[str, Any]:
    row = item.row
    answer_idx = row["letter"] or None
    return {
        "id": row_id,
        "question": row["question"],
        "answer": row["reference"],
        "response": row["response"],
        "answer_idx": answer_idx,
    }


def _evaluation(row_id: str, item: ScoredItem) -> dict[str, Any]:
    # Reports are graded 0 to 5 there, questions 0 or 1.
    scale = 5 if item.row["kind"] == "report" else 1
    score = round((item.score or 0.0) * scale, 4)
    return {**_generation(row_id, item), "evaluation": {"score": score, "decided_by": item.how}}


def _scores(items: list[ScoredItem]) -> str:
    by_task: dict[str, list[float]] = {}
    for item in items:
        by_task.setdefault(item.row["task"], []).append(item.score or 0.0)
    means = {task: sum(scores) / len(scores) for task, scores in by_task.items()}
    lines = [f"{task}: {mean:.4f}" for task, mean in means.items()]
    return "\n".join([*lines, f"Overall: {sum(means.values()) / len(means):.4f}"]) + "\n"


def _lines(rows: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
