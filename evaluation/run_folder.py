"""The folder of one evaluated model: its settings, its rows, and what they cost.

A run folder may have been copied, cut short or edited by hand, so all that is read from it is held to its form. What
was asked is what is scored: a row that is missing is an error that names the file.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from evaluation.item import ItemKind
from medix.errors import EvaluationError
from medix.files import read_mapping, write_atomically
from medix.jsonl import JsonLines, JsonlWriter, parse_object

Grade = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""Of a task; file names are made of it."""
Counts = dict[str, Annotated[int, Field(ge=0)]]
Error = dict[str, str] | None


class TaskSettings(TypedDict):
    """What `run.json` says of a task; `items` and `refused` are counted once every question was asked."""

    group: str
    judging: str
    released_name: NotRequired[str]
    items: NotRequired[int]
    refused: NotRequired[Counts]


class GenerateSettings(TypedDict):
    """How the questions were asked."""

    run: str
    model: dict[str, Any]
    prompt: str
    decoding: dict[str, Any]
    limit: int | None
    tasks: dict[Name, TaskSettings]
    complete: bool


class JudgeSettings(TypedDict):
    """Who judged, by which rubric a task."""

    judges: list[dict[str, Any]]
    rubrics: dict[str, str]
    versions: dict[str, str]
    """Rubric -> what changes with the wording of its prompt."""


class Settings(TypedDict):
    """The content of `run.json`."""

    generate: GenerateSettings
    judge: NotRequired[JudgeSettings]


class GenerationRow(TypedDict):
    """An item with its response, or with the error that it met."""

    key: str
    run: str
    task: Name
    id: str
    place: int
    kind: ItemKind
    question: str
    reference: str
    aliases: list[str]
    choices: list[str]
    letter: str
    passage: str
    modality: str | None
    cluster: str
    images: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    points: NotRequired[list[tuple[str, float]]]
    asked: NotRequired[str]
    prompt: str
    response: str | None
    finish: str
    usage: Counts
    latency_s: float
    error: Error


class VoteRow(TypedDict):
    """One reading by a judge."""

    score: Grade
    raw: str
    dimensions: dict[str, Annotated[float, Field(ge=0, le=5)] | None]
    why: str


class JudgementRow(TypedDict):
    """A judge's finding on a response: the score of its votes, or the error."""

    key: str
    judge: str
    score: Grade | None
    votes: list[VoteRow]
    error: Error
    usage: Counts
    latency_s: float


class PairRow(TypedDict):
    """A judge's finding on a labelled pair of a calibration."""

    key: str
    score: Grade | None
    error: Error


def checked(form: Any, value: Any, path: Path) -> Any:
    """Hold a value that was read from a file to its form.

    Raises:
        EvaluationError: a field is missing, of another type or out of its range; names the file and the field.
    """
    try:
        TypeAdapter(form).validate_python(value) if isinstance(form, type) else form.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the row"
        raise EvaluationError(
            f"{path} is damaged: {field}: {first['msg'][0].lower()}{first['msg'][1:]}.",
            "Restore the file from a copy, or remove it and run the stage again.",
        ) from None
    return value


class Rows:
    """Rows of a JSON-lines file by key; a later row replaces an earlier one of the same key. Rows are only added."""

    def __init__(self, path: Path, form: type) -> None:
        self.path = path
        self._form: TypeAdapter[Any] = TypeAdapter(form)
        self.note: str | None = None
        """What the last reading passed over: half lines and lines that are no JSON."""

    @contextmanager
    def reader(self) -> Iterator[tuple[dict[str, int], Callable[[str], dict[str, Any] | None]]]:
        """Give the place of each key's latest row, by first appearance, and a function from a key to that row."""
        lines = JsonLines(self.path)
        places = {str(row["key"]): offset for _, offset, row in lines.with_offsets() if "key" in row}
        self.note = lines.note()
        with self.path.open("rb") if places else BytesIO() as file:

            def read(key: str) -> dict[str, Any] | None:
                if key not in places:
                    return None
                file.seek(places[key])
                row: dict[str, Any] = checked(self._form, parse_object(file.readline()), self.path)
                return row

            yield places, read

    def latest(self) -> Iterator[dict[str, Any]]:
        """Yield the latest row of each key, one in memory at a time."""
        with self.reader() as (places, read):
            yield from filter(None, map(read, places))

    def writer(self) -> JsonlWriter:
        """Open the file for appending; another writer at the same time is refused."""
        return JsonlWriter(self.path, exclusive=True)


class RunFolder:
    """Paths below `--out`, and its `run.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generations = Rows(path / "generations.jsonl", GenerationRow)
        self.judgements = Rows(path / "judgements.jsonl", JudgementRow)
        self.refusals = path / "refused.jsonl"
        """One line for each row of a source that could not be made a question."""
        self.images = path / "images"
        """A small JPEG for each image, named by the hash of the original."""

    def settings(self) -> Settings:
        """Return what `generate` and `judge` were asked for.

        Raises:
            EvaluationError: nothing was generated here, or `run.json` is damaged.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise EvaluationError(
                f"{self.path} is no run folder: it has no run.json.", "Start with `medix eval generate --out FOLDER`."
            )
        settings: Settings = checked(Settings, read_mapping(file), file)
        return settings

    def current_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that the finished run asked for, task by task in the order of their sources.

        Items that a task no longer has, or that a smaller `--limit` leaves out, stay in the file and are not scored.
        Of an unfinished run the rows that it has so far are yielded.

        Raises:
            EvaluationError: an item that was asked has no row any more.
        """
        settings = self.settings()["generate"]
        if not settings["complete"]:
            rows = self.generations.latest()
            yield from (row for row in rows if row["run"] == settings["run"] and row["task"] in settings["tasks"])
            return
        with self.generations.reader() as (places, read):
            for task in settings["tasks"]:
                keys = self._asked(task, settings["tasks"][task].get("items", 0))
                missing = sum(key not in places for key in keys)
                if missing:
                    note = f" ({self.generations.note})" if self.generations.note else ""
                    raise EvaluationError(
                        f"{self.generations.path} lacks {missing} of the {len(keys)} items asked of {task}{note}.",
                        "Run the same `medix eval generate` command again: it asks only what is missing.",
                    )
                yield from filter(None, map(read, keys))

    def note_asked(self, task: str, keys: Iterable[str]) -> None:
        """Remember which items a finished pass over a task consisted of, in order."""
        write_atomically(self.path / "asked" / f"{task}.txt", "".join(f"{key}\n" for key in keys))

    def _asked(self, task: str, count: int) -> list[str]:
        file = self.path / "asked" / f"{task}.txt"
        keys = file.read_text(encoding="utf-8", errors="replace").split() if file.is_file() else []
        if len(keys) != count:
            raise EvaluationError(
                f"{file} names {len(keys)} items, but {count} were asked.",
                "Run the same `medix eval generate` command again: it asks only what is missing.",
            )
        return keys

    def update_settings(self, section: str, values: Mapping[str, Any]) -> None:
        """Write one section of `run.json`; the others stay."""
        earlier = dict(self.settings()) if (self.path / "run.json").is_file() else {}
        self.write_json("run.json", {**earlier, section: dict(values)})

    def write_json(self, name: str, value: Any) -> None:
        """Write a result whole or not at all."""
        write_atomically(self.path / name, dumps(value, indent=2, ensure_ascii=False) + "\n")

    def log_stage(self, stage: str, started: float, counts: Mapping[str, Any]) -> None:
        """Add one line to `ledger.jsonl`; `started` is of `time.time()`."""
        line = {"stage": stage, "started": round(started, 3), "seconds": round(time.time() - started, 3), **counts}
        with JsonlWriter(self.path / "ledger.jsonl") as ledger:
            ledger.append(line)


def ledger(folder: RunFolder, prices: Sequence[float] = ()) -> dict[str, Any]:
    """Return tokens, seconds and money of the model and of the judges; a row that was paid for counts once a key.

    Args:
        prices: money for a million tokens into and out of the model, and of the judges; empty states no money.
    """
    seconds: Counter[str] = Counter()
    for _, entry in JsonLines(folder.path / "ledger.jsonl"):
        seconds[str(entry.get("stage"))] += float(entry.get("seconds") or 0)  # type: ignore[assignment]
    return {
        "model": _cost(folder.generations.latest(), prices[:2]),
        "judges": _cost(folder.judgements.latest(), prices[2:4]),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "prices_per_million": list(prices),
    }


def _cost(rows: Iterable[Mapping[str, Any]], prices: Sequence[float]) -> dict[str, Any]:
    names = ("prompt_tokens", "completion_tokens")
    total: dict[str, Any] = {"calls": 0, "call_seconds": 0.0, **dict.fromkeys(names, 0)}
    for row in rows:
        total["calls"] += 1
        total["call_seconds"] = round(total["call_seconds"] + row["latency_s"], 3)
        for name in names:
            total[name] += row["usage"].get(name, 0)
    money = sum(total[name] * price / 1e6 for name, price in zip(names, prices, strict=False))
    return total | {"money": round(money, 6) if prices else None}
