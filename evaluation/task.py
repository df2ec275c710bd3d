"""Benchmarks as data: a YAML says where the rows are, at which revision, and how they are asked and judged."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from data_prep.images import MAX_BYTES, ImagePolicy, prepare_image, shown_alike
from data_prep.records import ImageRef, Record, Refusal, Unfit
from data_prep.sources import records
from evaluation.item import ITEM_KINDS, LETTERS, Item, ItemKind, Name, content_hash
from medix.errors import ConfigError, DataError
from medix.files import read_mapping
from medix.options import Count, CountOrZero, Texts, read_options, suggest

TASK_DIR = Path(__file__).resolve().parent / "tasks"
SENT_AS_IT_IS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
"""Image formats that every server reads; others, 16 bits of grey, and what EXIF turns, are converted to PNG."""
AS_LARGE_AS_IT_IS = ImagePolicy(1, 2**62)
_YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Released:
    """How the released harness puts a task's questions, where it differs."""

    name: str = ""
    """Its name for the task, where it has another one."""
    question: str = "{question}"
    """May hold `{passage}`, `{first_section}` (of the passage) and `{question}`."""
    choices: Texts = ()
    """Shown in place of the options."""
    reference: str = "{reference}"
    """May hold `{reference}` and the columns that the source's `?extra=` names."""


@dataclass(frozen=True)
class Task:
    """One benchmark."""

    name: Name
    source: str
    """As for `medix prepare`: `slake`, `jsonl:rows.jsonl?image=scan`, `hub:OWNER/NAME?revision=COMMIT`."""
    summary: str
    groups: Annotated[Texts, Field(min_length=1)] = ("own",)
    """The first is the one that it is averaged with; `paper` marks the paper's 17."""
    version: Count = 1
    """Raised whenever a change of the file changes what is asked or how it is scored."""
    splits: Texts = ()
    """Parts that are asked; empty: the source's evaluation parts."""
    kind: Literal["", "open", "closed", "choice", "report", "points"] = ""
    """Of every item; empty: what the source states. `open` hides the options of a choice question."""
    judging: Literal["", "verdict", "rubric", "report", "points"] = ""
    """Rubric for the judge; empty: by the kind."""
    clusters: str = ""
    """Column whose equal values mark items that are not independent, e.g. the patient."""
    max_tokens: Count = 2048
    """Of a response, where the command names no number."""
    items: CountOrZero = 0
    """As published, for the list of tasks."""
    modality: str = ""
    """For the list of tasks: what its pictures are; empty: text only."""
    protocol: str = ""
    """The protocol that it was published with, in a few words."""
    released: Released = field(default_factory=Released)

    @property
    def set_name(self) -> str:
        """Name of its data set in `medix prepare`."""
        return self.source.partition("?")[0].partition(":")[0]

    @property
    def rubric(self) -> str:
        return self.judging or (self.kind if self.kind in ("report", "points") else "rubric")

    def describe(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the task."""
        more = {"released_name": self.released.name or self.name} if "paper" in self.groups else {}
        described = {"version": self.version, "group": self.groups[0], "source": self.source, "judging": self.rubric}
        return described | more

    def specification(self, local: Path | None) -> str:
        """Return the source with a local folder in place of its own, and the column of the clusters."""
        head, _, query = self.source.partition("?")
        if local is not None:
            head = f"{head.partition(':')[0].replace('hub', 'table')}:{local}"
            query = "&".join(part for part in query.split("&") if part and not part.startswith("revision="))
        query = "&".join(filter(None, (query, f"group={self.clusters}" if self.clusters else "")))
        return f"{head}?{query}" if query else head


def load_tasks(path: Path = TASK_DIR) -> dict[str, Task]:
    """Return all tasks of a folder, or of one file, by name.

    A file holds one task, or `common` fields and a list of `tasks` that share them.

    Raises:
        ConfigError: a field is unknown or of the wrong type (YAML's bare yes and no are booleans: quote them), or two
            tasks have one name.
    """
    tasks: dict[str, Task] = {}
    for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
        if not file.is_file():
            raise ConfigError(f"There is no task file at {file}.", "Correct --tasks.")
        raw = read_mapping(file)
        listed = raw.get("tasks", [raw])
        if not isinstance(listed, list) or not all(isinstance(task, dict) for task in listed):
            raise ConfigError(f"`tasks` in {file} is no list of mappings.", "docs/evaluation.md has an example.")
        for one in listed:
            task = read_options(Task, {**(raw.get("common") or {}), **one} if "tasks" in raw else one, file.name)
            if task.name in tasks:
                raise ConfigError(f"{file} holds a second task named {task.name!r}.", "Rename one of them.")
            tasks[task.name] = task
    return tasks


def select_tasks(names: Sequence[str]) -> list[Task]:
    """Return the tasks of groups, names, data sets and YAML files, each once, in the order asked for.

    `all` is every task but the sample set; a name with a minus before it is left out: `paper`, `-mimic_cxr`.

    Raises:
        ConfigError: there is no such task, or none is left.
    """
    known: dict[str, Task] = load_tasks()
    chosen: dict[str, Task] = {}
    groups = {group for task in known.values() for group in task.groups}
    for name in names:
        if name.startswith("-"):
            out = {task.name for task in select_tasks([name[1:]])}
            chosen = {own: task for own, task in chosen.items() if own not in out}
        elif name.endswith((".yaml", ".yml")):
            chosen |= load_tasks(Path(name).expanduser())
        elif name in groups and name not in known:
            chosen |= {task.name: task for task in known.values() if name in task.groups}
        elif name not in known and (of_set := [task for task in known.values() if task.set_name == name]):
            chosen |= {task.name: task for task in of_set}
        elif name == "all":
            chosen |= {task.name: task for task in known.values() if task.name != "sample"}
        elif name in known:
            chosen[name] = known[name]
        else:
            raise ConfigError(f"There is no task {name!r}.", suggest(name, [*known, "all", *groups]))
    if not chosen:
        raise ConfigError(f"No task is left of --tasks {','.join(names)}.", "`--tasks list` prints all tasks.")
    return list(chosen.values())


def describe_tasks() -> str:
    """Return a table of all tasks: items as published, kind, modality, groups, source and licence."""
    from data_prep.sources.catalogue import CATALOGUE

    rows = [("task", "items", "kind", "modality", "groups", "source", "licence")]
    for task in load_tasks().values():
        head, _, query = task.source.partition("?")
        known = CATALOGUE[task.set_name]
        licence = dict(part.split("=", 1) for part in query.split("&") if "=" in part).get("licence", known.licence)
        source = known.repository or head
        kind = task.kind or "as stated"
        rows.append(
            (task.name, str(task.items or "-"), kind, task.modality or "text", " ".join(task.groups), source, licence)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def load_items(
    task: Task, local: Path | None = None, limit: int | None = None, released: bool = False
) -> Iterator[Item | Refusal]:
    """Yield the items of a task in the order of its source, at most `limit`; a row that is no question is refused.

    Args:
        local: folder with the task's files; None reads the hub's cache, or the hub.
        released: ask with the released harness's wording and JPEG images.

    Raises:
        ConfigError: the source is missing, or its columns can not be told.
    """
    seen: dict[str, int] = {}
    place, found = count(), 0
    for record in records(task.specification(local), task.splits or None):
        number = next(place)
        if isinstance(record, Refusal):
            yield record
            continue
        try:
            item = _item(task, record, number, seen, released)
        except Unfit as unfit:
            yield Refusal(task.name, record.id, unfit.reason, unfit.detail[:200])
        except DataError as error:
            yield Refusal(task.name, record.id, "bad_field", error.problem[:200])
        else:
            yield item
            found += 1
            if found == limit:
                return


def _item(task: Task, record: Record, place: int, seen: dict[str, int], released: bool) -> Item:
    stated = record.answer_kind if record.answer_kind in ITEM_KINDS else "open"
    kind = cast(ItemKind, task.kind or ("choice" if record.choices else stated))
    if kind == "open" and record.reference.lower().rstrip(".") in _YES_NO:
        kind = "closed"
    choices = record.choices if kind == "choice" else ()
    images = tuple(_image(ref, released) for ref in record.images)
    wording = task.released if released else Released()
    reference = wording.reference.format_map({"reference": record.reference, **record.extra})
    asked = ""
    if wording.question != "{question}" or wording.choices:
        section = record.passage.split("\n")[0].partition(": ")
        values = {"question": record.question, "passage": record.passage, "first_section": section[2] or section[0]}
        lettered = zip(LETTERS, wording.choices or choices, strict=False)
        options = "\nChoices:\n" + "\n".join(f"{letter}. {choice}" for letter, choice in lettered)
        asked = wording.question.format_map(values) + (options if kind == "choice" else "")
    item = Item(
        task=task.name,
        id=record.id if record.has_own_id else "",
        question=record.question,
        reference=reference,
        kind=kind,
        images=images,
        choices=choices,
        letter=record.letter if kind == "choice" else "",
        passage=record.passage,
        modality=record.modality,
        aliases=record.aliases,
        group=record.group,
        points=_points(record.extra) if kind == "points" else (),
        asked=asked,
        place=place,
    )
    base = item.id or content_hash(item.question, item.reference, item.choices, item.passage, item.image_hashes)[:16]
    seen[base] = seen.get(base, 0) + 1
    # True duplicates of a source stay items of their own.
    object.__setattr__(item, "id", base if seen[base] == 1 else f"{base}-{seen[base]}")
    return item


def _image(ref: ImageRef, jpeg: bool) -> bytes:
    """Return the encoded bytes of an image, as they are where every server reads their format.

    Raises:
        Unfit: it is missing, outside its folder, too large, or no image.
    """
    data = ref.read(MAX_BYTES)
    if data.startswith(SENT_AS_IT_IS) and not jpeg and shown_alike(data):
        return data
    prepared = prepare_image(data, ref.name, AS_LARGE_AS_IT_IS, ref.view)
    if not jpeg:
        return prepared.data
    buffer = io.BytesIO()
    prepared.pixels.save(buffer, "JPEG")
    return buffer.getvalue()


def _points(extra: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """Read the criteria of a row: a JSON list of `criterion` and `points` in its one extra column."""
    import json

    try:
        listed = json.loads(next(iter(extra.values())))
        return tuple((str(one["criterion"]), float(one["points"])) for one in listed)
    except (StopIteration, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unfit("bad_field", f"no list of criteria and points: {type(error).__name__}") from error
