"""Stage 1: ask every question once. Killed and restarted it asks what is missing, and what failed before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_prep.images import prepare_image
from data_prep.records import Refusal, Unfit
from data_prep.sources import check_apart, open_source
from evaluation.backends import Answered, Backend, Question
from evaluation.concurrency import Watch
from evaluation.item import Content, Item, content_hash
from evaluation.options import Asking
from evaluation.prompting import render
from evaluation.run_folder import Row, RunFolder
from evaluation.task import AS_LARGE_AS_IT_IS, Task, load_items
from medix.errors import ConfigError, EvaluationError
from medix.files import write_atomically
from medix.jsonl import JsonlWriter

THUMBNAIL_SIDE = 384
_CONTENT = tuple(field.name for field in fields(Content))


@dataclass
class GenerateCounts:
    """What one call of the stage did."""

    items: int = 0
    answered: int = 0
    already: int = 0
    failed: int = 0
    refused: int = 0
    """Rows of the sources that are no question; `refused.jsonl` says why."""


async def generate(folder: RunFolder, backend: Backend, asking: Asking, width: int = 16) -> GenerateCounts:
    """Ask all questions that have no response yet; the backend is the caller's to close.

    Args:
        width: questions in flight; only the rule for giving up looks at it here.

    Raises:
        EvaluationError: a task has no question, the endpoint is gone, or the disk is full.
        ConfigError: another process writes the same folder.
    """
    started = time.time()
    stage = _Stage(folder, backend.identity(), asking)
    for task in asking.chosen:
        stage.check(task)
    with (
        folder.generations.writer() as writer,
        JsonlWriter(folder.refusals) as refusals,
        Watch("generate", "the model", width) as watch,
    ):
        folder.update_settings("generate", stage.settings() | {"complete": False})
        try:
            async for answered in backend.answer(stage.questions(writer, refusals)):
                writer.append(stage.row(answered))
                stage.counts.answered += answered.error is None
                stage.counts.failed += answered.error is not None
                watch.note(answered.error)
            for task_name, keys in stage.asked.items():
                folder.note_asked(task_name, keys)
            folder.update_settings("generate", stage.settings() | {"complete": True})
        finally:
            folder.log_stage("generate", started, asdict(stage.counts))
    return stage.counts


class _Stage:
    """What one call of the stage asks, and what it has counted so far."""

    def __init__(self, folder: RunFolder, identity: dict[str, Any], asking: Asking) -> None:
        self.folder = folder
        self.asking = asking
        self.identity = identity
        self.counts = GenerateCounts()
        self.revisions: dict[str, str] = {}
        self.asked: dict[str, list[str]] = {task.name: [] for task in asking.chosen}
        self.refused: dict[str, Counter[str]] = {task.name: Counter() for task in asking.chosen}
        self.run = content_hash(identity, asking.describe())
        self._done = {key for key, row in folder.generations.latest() if row.error is None}
        earlier: Any = folder.settings()["generate"] if (folder.path / "run.json").is_file() else {}
        # Tasks add up over calls with the same model, prompt and decoding; with others the folder starts anew.
        self._earlier_tasks = dict(earlier["tasks"]) if earlier.get("run") == self.run else {}

    def settings(self) -> dict[str, Any]:
        tasks = {}
        for task in self.asking.chosen:
            counted = {"items": len(self.asked[task.name]), "refused": dict(self.refused[task.name])}
            tasks[task.name] = task.describe() | {"revision": self.revisions[task.name]} | counted
        described = {"run": self.run, "model": self.identity, **self.asking.describe(), "limit": self.asking.limit}
        return described | {"tasks": self._earlier_tasks | tasks}

    def _items(self, task: Task) -> Iterator[Item | Refusal]:
        asking = self.asking
        return load_items(task, asking.local.get(task.name), asking.limit, asking.protocol == "released")

    def check(self, task: Task) -> None:
        """Find out before the first question whether the task has one: its files may be missing.

        Raises:
            EvaluationError: the task has no row, or all its rows are refused.
            ConfigError: its files are missing, or the answers would lie among them.
        """
        source = open_source(task.specification(self.asking.local.get(task.name)))
        check_apart(self.folder.path, source)
        self.revisions[task.name] = source.revision
        reasons: Counter[str] = Counter()
        files = f"--data {task.name}=FOLDER"
        try:
            for item in self._items(task):
                if isinstance(item, Item):
                    return
                reasons[item.reason] += item.rows
        except ConfigError as error:
            raise ConfigError(
                f"Task {task.name}: {error.problem}", f"{error.fix} Or name its files with {files}."
            ) from error
        counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        why = f"all {reasons.total()} rows are refused ({counts})" if reasons else "its source has no rows"
        raise EvaluationError(f"Task {task.name} has no question: {why}.", f"Check the files that it reads ({files}).")

    def questions(self, writer: JsonlWriter, refusals: JsonlWriter) -> Iterator[Question]:
        """Yield the questions that have no response yet, and note all that are asked and refused.

        A question with a bad image becomes a failed row and is not asked.
        """
        for task in self.asking.chosen:
            max_tokens = self.asking.max_tokens or task.max_tokens
            decoding = {**asdict(self.asking.decoding), "max_tokens": max_tokens}
            for item in self._items(task):
                if isinstance(item, Refusal):
                    self.counts.refused += item.rows
                    self.refused[task.name][item.reason] += item.rows
                    refusals.append({"task": task.name, **item.as_json()})
                    continue
                prompt = render(item, self.asking.template)
                # The task's name and the item's id are in it, so that equal questions of two tasks are two rows.
                content = task.name, item.id, prompt, item.image_hashes, item.reference
                question = Question(content_hash(*content, self.identity, decoding), item, prompt, max_tokens)
                self.counts.items += 1
                self.asked[task.name].append(question.key)
                if question.key in self._done:
                    self.counts.already += 1
                    continue
                try:
                    for name, image in zip(item.image_hashes, item.images, strict=True):
                        keep_thumbnail(self.folder.images, name, image)
                except Unfit as unfit:
                    self.counts.failed += 1
                    error = {"kind": "bad_image", "detail": str(unfit)}
                    writer.append(self.row(Answered(question, None, error=error)))
                else:
                    yield question

    def row(self, answered: Answered) -> dict[str, Any]:
        """Return the line of `generations.jsonl`."""
        item = answered.question.item
        row = Row(
            **{name: getattr(item, name) for name in _CONTENT},
            key=answered.question.key,
            run=self.run,
            cluster=item.cluster,
            images=item.image_hashes,
            prompt=self.asking.style,
            response=answered.text,
            finish=answered.finish,
            usage=answered.usage,
            latency_s=round(answered.latency_s, 4),
            error=answered.error,
        )
        return vars(row) | {"time": round(time.time(), 3)}


def keep_thumbnail(folder: Path, name: str, image: bytes) -> None:
    """Write `NAME.jpg` below `folder`, at most 384 px a side, for the report and for a judge that sees.

    Raises:
        Unfit: the bytes are no image, a damaged one, or one too large to decode.
    """
    target = folder / f"{name}.jpg"
    if not target.exists():
        small = prepare_image(image, "", AS_LARGE_AS_IT_IS).pixels
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        write_atomically(target, lambda part: small.save(part, "JPEG", quality=80))
