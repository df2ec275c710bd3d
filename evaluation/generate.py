"""Stage 1: ask every question once. Killed and restarted it asks what is missing, and what failed before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.images import prepare_image
from data_prep.records import Refusal, Unfit
from evaluation.backends import Answered, Backend, Decoding, Question
from evaluation.concurrency import Watch
from evaluation.item import Item, content_hash
from evaluation.prompting import PromptStyle, render
from evaluation.run_folder import RunFolder
from evaluation.task import AS_LARGE_AS_IT_IS, Task, load_items
from medix.errors import ConfigError, EvaluationError
from medix.files import write_atomically
from medix.jsonl import JsonlWriter

THUMBNAIL_SIDE = 384


@dataclass(frozen=True)
class GenerateOptions:
    """What is asked, and how."""

    tasks: tuple[Task, ...]
    decoding: Decoding = field(default_factory=Decoding)
    """`max_tokens` of None leaves the length of a response to each task."""
    template: str | None = None
    """Text of a training prompt; None puts the bare question."""
    limit: int | None = None
    """Items of each task."""
    local: dict[str, Path] = field(default_factory=dict)
    """Task name -> folder with its files."""
    width: int = 16
    """Questions in flight; only the rule for giving up looks at it here."""
    released: bool = False
    """Put the questions as the released harness does."""

    @property
    def style(self) -> PromptStyle:
        return "bare" if self.template is None else "training"

    def describe(self) -> dict[str, Any]:
        """Return what decides how a question is put, for `run.json`."""
        template = {} if self.template is None else {"template": self.template}
        protocol = {"protocol": "released"} if self.released else {}
        return {"prompt": self.style, "decoding": asdict(self.decoding), **template, **protocol}


@dataclass
class GenerateCounts:
    """What one call of the stage did."""

    items: int = 0
    answered: int = 0
    already: int = 0
    failed: int = 0
    refused: int = 0
    """Rows of the sources that are no question; `refused.jsonl` says why."""


async def generate(folder: RunFolder, backend: Backend, options: GenerateOptions) -> GenerateCounts:
    """Ask all questions that have no response yet.

    Raises:
        EvaluationError: a task has no question, the endpoint is gone, or the disk is full.
        ConfigError: another process writes the same folder.
    """
    started = time.time()
    stage = _Stage(folder, backend.identity(), options)
    for task in options.tasks:
        stage.check(task)
    with (
        folder.generations.writer() as writer,
        JsonlWriter(folder.refusals) as refusals,
        Watch("generate", "the model", options.width) as watch,
    ):
        folder.update_settings("generate", stage.settings() | {"complete": False})
        try:
            questions = _keep_images(stage.questions(refusals), folder, stage, writer)
            async for answered in backend.answer(questions):
                writer.append(stage.row(answered))
                stage.counts.answered += answered.error is None
                stage.counts.failed += answered.error is not None
                watch.note(answered.fatal, (answered.error or {}).get("detail", ""))
            for task_name, keys in stage.asked.items():
                folder.note_asked(task_name, keys)
            folder.update_settings("generate", stage.settings() | {"complete": True})
        finally:
            await backend.aclose()
            folder.log_stage("generate", started, asdict(stage.counts))
    return stage.counts


class _Stage:
    """What one call of the stage asks, and what it has counted so far."""

    def __init__(self, folder: RunFolder, identity: dict[str, Any], options: GenerateOptions) -> None:
        self.options, self.identity, self.counts = options, identity, GenerateCounts()
        self.asked: dict[str, list[str]] = {task.name: [] for task in options.tasks}
        self.refused: dict[str, Counter[str]] = {task.name: Counter() for task in options.tasks}
        self.run = content_hash(identity, options.describe())
        self._done = {str(row["key"]) for row in folder.generations.latest() if row["error"] is None}
        earlier: dict[str, Any] = {}
        if (folder.path / "run.json").is_file():
            earlier = {**folder.settings()["generate"]}
        # Tasks add up over calls with the same model, prompt and decoding; with others the folder starts anew.
        self._earlier_tasks = dict(earlier["tasks"]) if earlier.get("run") == self.run else {}

    def settings(self) -> dict[str, Any]:
        tasks = {
            task.name: task.describe() | {"items": len(self.asked[task.name]), "refused": dict(self.refused[task.name])}
            for task in self.options.tasks
        }
        described = {"run": self.run, "model": self.identity, **self.options.describe(), "limit": self.options.limit}
        return described | {"tasks": self._earlier_tasks | tasks}

    def _items(self, task: Task) -> Iterator[Item | Refusal]:
        options = self.options
        return load_items(task, options.local.get(task.name), options.limit, options.released)

    def check(self, task: Task) -> None:
        """Find out before the first question whether the task has one: its files may be missing.

        Raises:
            EvaluationError: the task has no row, or all its rows are refused.
            ConfigError: its files are missing.
        """
        reasons: Counter[str] = Counter()
        try:
            for item in self._items(task):
                if isinstance(item, Item):
                    return
                reasons[item.reason] += item.rows
        except ConfigError as error:
            raise ConfigError(
                f"Task {task.name}: {error.problem}", f"{error.fix} Or name its files with --data {task.name}=FOLDER."
            ) from error
        found = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        raise EvaluationError(
            f"Task {task.name} has no question: "
            + (f"all {reasons.total()} rows are refused ({found})." if reasons else "its source has no rows."),
            f"Check the files that it reads (--data {task.name}=FOLDER).",
        )

    def questions(self, refusals: JsonlWriter) -> Iterator[Question]:
        """Yield the questions that have no response yet, and note all that are asked and refused."""
        for task in self.options.tasks:
            max_tokens = self.options.decoding.max_tokens or task.max_tokens
            decoding = {**asdict(self.options.decoding), "max_tokens": max_tokens}
            for item in self._items(task):
                if isinstance(item, Refusal):
                    self.counts.refused += item.rows
                    self.refused[task.name][item.reason] += item.rows
                    refusals.append({"task": task.name, **item.as_json()})
                    continue
                prompt = render(item, self.options.template)
                # The task's name and the item's id are in it, so that equal questions of two tasks are two rows.
                key = content_hash(
                    task.name, item.id, prompt, item.image_hashes, item.reference, self.identity, decoding
                )
                self.counts.items += 1
                self.asked[task.name].append(key)
                if key in self._done:
                    self.counts.already += 1
                else:
                    yield Question(key, item, prompt, max_tokens)

    def row(self, answered: Answered) -> dict[str, Any]:
        return {
            "key": answered.question.key,
            "run": self.run,
            **answered.question.item.as_row(),
            "prompt": self.options.style,
            "response": answered.text,
            "finish": answered.finish,
            "usage": answered.usage,
            "latency_s": round(answered.latency_s, 4),
            "error": answered.error,
            "time": round(time.time(), 3),
        }


def _keep_images(
    questions: Iterable[Question], folder: RunFolder, stage: _Stage, writer: JsonlWriter
) -> Iterator[Question]:
    """Pass questions on once their thumbnails are kept; one with a bad image becomes a failed row and is not asked."""
    for question in questions:
        try:
            for name, image in zip(question.item.image_hashes, question.item.images, strict=True):
                keep_thumbnail(folder.images, name, image)
        except Unfit as unfit:
            stage.counts.failed += 1
            writer.append(stage.row(Answered(question, None, error={"kind": "bad_image", "detail": str(unfit)})))
            continue
        yield question


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
