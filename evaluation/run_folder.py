"""The folder of one evaluated model: its settings, its rows, and what they cost.

A run folder may have been copied, cut short or edited by hand, so all that is read from it is held to its form. What
was asked is what is scored: a row that is missing is an error that names the file.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Generic, NotRequired, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from evaluation.item import Content, Name
from evaluation.prompting import PromptStyle
from medix.errors import EvaluationError
from medix.files import read_mapping, write_atomically
from medix.jsonl import JsonLines, JsonlWriter, parse_object

Grade = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Counts = dict[str, Annotated[int, Field(ge=0)]]
Error = dict[str, str] | None
"""`kind` and `detail`."""


class TaskSettings(TypedDict):
    """What `run.json` says of a task; `items` and `refused` are counted once every question was asked."""

    group: str
    judging: str
    released_name: NotRequired[str]
    items: NotRequired[int]
    refused: NotRequired[Counts]


class ModelSettings(TypedDict):
    """Which model answered."""

    model: str


class GenerateSettings(TypedDict):
    """How the questions were asked."""

    run: str
    model: ModelSettings
    prompt: str
    decoding: dict[str, Any]
    limit: int | None
    tasks: dict[Name, TaskSettings]
    complete: bool


class OneJudge(TypedDict):
    """What of a judge decides its judgements."""

    model: str
    votes: int
    temperature: float
    sees_images: bool
    wording: NotRequired[str]


class JudgeSettings(TypedDict):
    """Who judged, by which rubric a task; `versions` has what changes with the wording of a rubric's prompt."""

    judges: list[OneJudge]
    rubrics: dict[str, str]
    versions: dict[str, str]


class Settings(TypedDict):
    """The content of `run.json`."""

    generate: GenerateSettings
    judge: NotRequired[JudgeSettings]


@dataclass(frozen=True, kw_only=True)
class Row(Content):
    """A line of `generations.jsonl`: a question with its response, or with the error that it met."""

    key: str
    """Content address of all that decides the response."""
    run: str
    cluster: str
    images: tuple[Annotated[str, Field(pattern="^[0-9a-f]{16}$")], ...]
    prompt: PromptStyle
    response: str | None
    finish: str
    usage: Counts
    latency_s: float
    error: Error


@dataclass(frozen=True)
class Vote:
    """One reading by a judge. `score` is 0 or 1 for questions and criteria, fifths for reports."""

    score: Grade
    raw: str
    dimensions: Mapping[str, Annotated[float, Field(ge=0, le=5)] | None] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Judgement:
    """A judge's finding on a case, as `judgements.jsonl` holds it. `score` is None where there is an error."""

    score: Grade | None
    votes: tuple[Vote, ...]
    error: Error
    usage: Counts
    latency_s: float

    @property
    def reason(self) -> str:
        """Why there is no score; empty where there is one."""
        return "" if self.score is not None else (self.error or {}).get("kind", "no score")


R = TypeVar("R")
_adapter = cache(TypeAdapter)


def checked(form: Any, value: Any, path: Path) -> Any:
    """Return a value that was read from a file in its form.

    Raises:
        EvaluationError: a field is missing, of another type or out of its range; names the file and the field.
    """
    try:
        missing = [one.name for one in fields(form) if one.name not in value] if is_dataclass(form) else []
        if not missing:
            return _adapter(form).validate_python(value)
        problem = f"{missing[0]}: field required"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the row"
        problem = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}"
    raise EvaluationError(
        f"{path} is damaged: {problem}.", "Restore the file from a copy, or remove it and run the stage again."
    )


class Rows(Generic[R]):
    """Rows of a JSON-lines file by key; a later row replaces an earlier one of the same key. Rows are only added."""

    def __init__(self, path: Path, form: type[R]) -> None:
        self.path, self._form = path, form
        self.note: str | None = None
        """What the last reading passed over: half lines and lines that are no JSON."""

    @contextmanager
    def reader(self) -> Iterator[tuple[dict[str, int], Callable[[str], R | None]]]:
        """Give the place of each key's latest row, by first appearance, and a function from a key to that row."""
        lines = JsonLines(self.path)
        places = {str(row["key"]): offset for _, offset, row in lines.with_offsets() if "key" in row}
        self.note = lines.note()
        with self.path.open("rb") if places else BytesIO() as file:

            def read(key: str) -> R | None:
                if key not in places:
                    return None
                file.seek(places[key])
                row: R = checked(self._form, parse_object(file.readline()), self.path)
                return row

            yield places, read

    def latest(self) -> Iterator[tuple[str, R]]:
        """Yield each key with its latest row, one in memory at a time."""
        with self.reader() as (places, read):
            for key in places:
                if (row := read(key)) is not None:
                    yield key, row

    def writer(self) -> JsonlWriter:
        """Open the file for appending; another writer at the same time is refused."""
        return JsonlWriter(self.path, exclusive=True)


class RunFolder:
    """Paths below `--out`, and its `run.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generations = Rows(path / "generations.jsonl", Row)
        self.judgements = Rows(path / "judgements.jsonl", Judgement)
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
        settings: Any = read_mapping(file)
        checked(Settings, settings, file)
        return settings  # type: ignore[no-any-return]

    def current_rows(self) -> Iterator[Row]:
        """Yield the rows that the finished run asked for, task by task in the order of their sources.

        Items that a task no longer has, or that a smaller `--limit` leaves out, stay in the file and are not scored.
        Of an unfinished run the rows that it has so far are yielded.

        Raises:
            EvaluationError: an item that was asked has no row any more.
        """
        settings = self.settings()["generate"]
        if not settings["complete"]:
            rows = self.generations.latest()
            yield from (row for _, row in rows if row.run == settings["run"] and row.task in settings["tasks"])
            return
        again = "Run the same `medix eval generate` command again: it asks only what is missing."
        with self.generations.reader() as (places, read):
            for task, facts in settings["tasks"].items():
                file = self._asked(task)
                count = facts.get("items", 0)
                keys = file.read_text(encoding="utf-8", errors="replace").split() if file.is_file() else []
                if len(keys) != count:
                    raise EvaluationError(f"{file} names {len(keys)} items, but {count} were asked.", again)
                missing = sum(key not in places for key in keys)
                if missing:
                    note = f" ({self.generations.note})" if self.generations.note else ""
                    found = f"lacks {missing} of the {count} items asked of {task}{note}"
                    raise EvaluationError(f"{self.generations.path} {found}.", again)
                yield from filter(None, map(read, keys))

    def note_asked(self, task: str, keys: Iterable[str]) -> None:
        """Remember which items a finished pass over a task consisted of, in order."""
        write_atomically(self._asked(task), "".join(f"{key}\n" for key in keys))

    def _asked(self, task: str) -> Path:
        return self.path / "asked" / f"{task}.txt"

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

    def ledger(self, prices: Sequence[float] = ()) -> dict[str, Any]:
        """Return tokens, seconds and money of the model and of the judges; what was paid for counts once a key.

        Args:
            prices: money for a million tokens into and out of the model, and of the judges; empty states no money.
        """
        seconds: Counter[str] = Counter()
        for _, entry in JsonLines(self.path / "ledger.jsonl"):
            seconds[str(entry.get("stage"))] += float(entry.get("seconds") or 0)  # type: ignore[assignment]
        return {
            "model": _cost(self.generations, prices[:2]),
            "judges": _cost(self.judgements, prices[2:4]),
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "prices_per_million": list(prices),
        }


def _cost(rows: Rows[Row] | Rows[Judgement], prices: Sequence[float]) -> dict[str, Any]:
    total = Counter(prompt_tokens=0, completion_tokens=0)
    seconds = 0.0
    calls = 0
    for _, row in rows.latest():
        calls += 1
        seconds += row.latency_s
        total.update({name: row.usage.get(name, 0) for name in total})
    money = sum(count * price / 1e6 for count, price in zip(total.values(), prices, strict=False))
    cost = {"calls": calls, "call_seconds": round(seconds, 3), **total}
    return cost | {"money": round(money, 6) if prices else None}
