"""Stage 1: ask every question once. Killed and restarted it asks what is missing, and what failed before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.records import Refusal
from evaluation.backends import Answered, Backend, Decoding, Question
from evaluation.bounded import GiveUp
from evaluation.item import Item, content_hash
from evaluation.loaders import load_items
from evaluation.progress import Progress
from evaluation.prompting import PromptStyle, render
from evaluation.row_file import RowWriter
from evaluation.run_folder import RunFolder
from evaluation.task import Task
from evaluation.thumbnail import keep_thumbnail
from medix.errors import DataError


@dataclass(frozen=True)
class GenerateOptions:
    """What is asked, and how."""

    tasks: tuple[Task, ...]
    prompt: PromptStyle
    decoding: Decoding
    limit: int | None = None
    """Items of each task."""
    local: dict[str, Path] = field(default_factory=dict)
    """Task name -> folder with its files."""
    width: int = 16
    """Questions in flight; only the rule for giving up looks at it here."""


@dataclass
class GenerateCounts:
    """What one call of the stage did."""

    items: int = 0
    answered: int = 0
    already: int = 0
    failed: int = 0
    refused: int = 0
    """Rows of the source that are no question; `refused.jsonl` says why."""


async def generate(folder: RunFolder, backend: Backend, options: GenerateOptions) -> GenerateCounts:
    """Ask all questions that have no response yet.

    Raises:
        EvaluationError: the endpoint is gone, the disk is full, or another process writes the same folder.
    """
    started, counts = time.time(), GenerateCounts()
    identity = backend.identity()
    run = content_hash(identity, options.prompt, asdict(options.decoding))
    settings = _settings(folder, options, identity, run)
    folder.update_settings("generate", settings | {"complete": False})
    asked: dict[str, list[str]] = {task.name: [] for task in options.tasks}
    done = _answered_keys(folder)
    give_up = GiveUp("the model", options.width)
    with (
        RowWriter(folder.generations.path) as writer,
        RowWriter(folder.refusals.path) as refusals,
        Progress("generate") as progress,
    ):
        try:
            fresh = _fresh(_questions(options, identity, counts, refusals), done, counts, asked)
            async for answered in backend.answer(_keep_images(fresh, folder, writer, counts, options.prompt, run)):
                writer.append(_row(answered, options.prompt, run))
                counts.answered += answered.error is None
                counts.failed += answered.error is not None
                progress.advance(counts.answered + counts.failed)
                give_up.note(answered.fatal, (answered.error or {}).get("detail", ""))
            for task, keys in asked.items():
                folder.note_asked(task, keys)
            folder.update_settings("generate", settings | {"complete": True})
        finally:
            await backend.aclose()
            folder.log_stage("generate", started, asdict(counts))
    return counts


def _settings(folder: RunFolder, options: GenerateOptions, identity: dict[str, Any], run: str) -> dict[str, Any]:
    """Tasks add up over calls with the same model, prompt and decoding; with others the folder starts anew."""
    earlier = folder.settings_or_empty().get("generate", {})
    tasks = dict(earlier["tasks"]) if earlier.get("run") == run else {}
    tasks |= {
        task.name: {"version": task.version, "group": task.group, "judging": task.judging, "revision": task.revision}
        for task in options.tasks
    }
    return {
        "run": run,
        "model": identity,
        "prompt": options.prompt,
        "decoding": asdict(options.decoding),
        "limit": options.limit,
        "tasks": tasks,
    }


def _answered_keys(folder: RunFolder) -> set[str]:
    return {str(row["key"]) for row in folder.generations.latest() if row["error"] is None}


def _questions(
    options: GenerateOptions, identity: dict[str, Any], counts: GenerateCounts, refusals: RowWriter
) -> Iterator[Question]:
    decoding = asdict(options.decoding)
    for task in options.tasks:
        for item in load_items(task, options.local.get(task.name), options.limit):
            if isinstance(item, Refusal):
                counts.refused += 1
                refusals.append({"key": content_hash(task.name, item.id, item.reason), **item.as_json()})
                continue
            prompt = render(item, options.prompt)
            # The task's name and the item's id are in it, so that equal questions of two tasks are two rows.
            key = content_hash(task.name, item.id, prompt, item.image_hashes, item.reference, identity, decoding)
            yield Question(key, item, prompt)


def _fresh(
    questions: Iterable[Question], done: set[str], counts: GenerateCounts, asked: dict[str, list[str]]
) -> Iterator[Question]:
    for question in questions:
        counts.items += 1
        asked[question.item.task].append(question.key)
        if question.key in done:
            counts.already += 1
        else:
            yield question


def _keep_images(
    questions: Iterable[Question], folder: RunFolder, writer: RowWriter, counts: GenerateCounts, style: str, run: str
) -> Iterator[Question]:
    """Pass questions on once their thumbnails are kept; one with a bad image becomes a failed row and is not asked."""
    for question in questions:
        try:
            for name, image in zip(question.item.image_hashes, question.item.images, strict=True):
                keep_thumbnail(folder.images, name, image)
        except DataError as error:
            counts.failed += 1
            failure = {"kind": "bad_image", "detail": error.found}
            writer.append(_row(Answered(question, None, error=failure), style, run))
            continue
        yield question


def _row(answered: Answered, style: str, run: str) -> dict[str, Any]:
    item: Item = answered.question.item
    return {
        "key": answered.question.key,
        "run": run,
        **item.as_row(),
        "prompt": style,
        "response": answered.text,
        "finish": answered.finish,
        "usage": answered.usage,
        "latency_s": round(answered.latency_s, 4),
        "error": answered.error,
        "time": round(time.time(), 3),
    }
