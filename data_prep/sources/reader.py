"""A data set bound to its files: plan its reading in stretches, and turn its rows into records."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from data_prep.records import Record, Refusal, Unfit
from data_prep.sources import columns as cols
from data_prep.sources import folders, tables
from data_prep.sources.catalogue import CATALOGUE, DataSet
from data_prep.sources.choices import LETTERS, choices_of, right_option
from data_prep.sources.columns import Columns
from data_prep.sources.fields import literal, present, said
from data_prep.sources.image_places import ImagePlace
from data_prep.sources.splits import TEST, TRAIN, VAL, split_of_word
from data_prep.sources.tables import Row, Stretch
from medix.modality import is_modality
from medix.prompts import IMAGE_SLOT

_BETWEEN: Final = re.compile(r"(?<=\w)#(?=\w)|(?<=\w) +# +(?=\w)")
"""Between right answers."""
_TAGGED: Final = re.compile(r"\s*<([A-Z][A-Z_]+)>(.*)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """One file of a source, and what was found out about it."""

    path: Path
    split: str
    form: tables.Form
    columns: Columns
    place: ImagePlace
    name: str = ""
    """Begins the ids of its rows that have none of their own; no other table of the source has it."""
    counted_ids: bool = False
    """The ids are numbers that the next table of the same split counts again from its start."""


@dataclass(frozen=True)
class Chunk:
    """A stretch of a table. Picklable: workers read it."""

    table: Table
    stretch: tables.Stretch
    lines: frozenset[int] | None = None
    """The only rows to read, where `--limit` leaves others out."""

    @property
    def rows(self) -> int:
        return self.stretch.rows if self.lines is None else len(self.lines)


@dataclass(frozen=True)
class Source:
    """One data set bound to its files. Frozen and picklable: workers get a copy."""

    specification: str
    name: str
    root: Path
    revision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    passed_over: tuple[str, ...] = ()
    """Tables of its folder that hold no questions."""

    @property
    def set(self) -> DataSet:
        return CATALOGUE[self.name]

    @property
    def label(self) -> str:
        """What the rows carry as their `data_source`; `?name=` changes it, so that two local sets can be told apart."""
        return self.options.get("name", self.name)

    @property
    def without_images(self) -> bool:
        """Return whether the specification says that no image is wanted."""
        return self.options.get("text_only", "") == "true" or self.options.get("image", "") == "none"

    def files(self) -> list[Path]:
        """Return the tables in a fixed order."""
        return [table.path for table in self.tables if table.form.kind != "folder"]

    def words(self) -> dict[str, str]:
        """Return the names of parts that mean something of their own here."""
        return own_words(self.set, self.options)

    def prepared_split(self, split: str, evaluation: bool) -> str | None:
        """Return `train` or `val` for a record's split, None where it is left out. `?splits=` names the wanted ones."""
        wanted = self.set.evaluation if evaluation else tuple(self.set.prepared)
        if "splits" in self.options:
            wanted = tuple(split_of_word(word, self.words()) or "" for word in self.options["splits"].split(","))
        if split not in wanted:
            return None
        return VAL if evaluation else self.set.prepared.get(split, VAL)

    def chunks(self, rows: int, limit: int | None) -> Iterator[Chunk]:
        """Plan the reading in stretches of about `rows` rows; with a limit, that many rows of each prepared split."""
        left = {TRAIN: limit, VAL: limit}
        for table in self.tables:
            for stretch in self._stretches(table, rows):
                chunk = Chunk(table, stretch)
                if limit is not None:
                    if not any(left.values()):
                        return
                    chunk = self._limited(chunk, left)
                if chunk.rows:
                    yield chunk

    def _stretches(self, table: Table, rows: int) -> Iterator[Stretch]:
        if table.form.kind != "folder":
            return tables.plan(table.path, table.form, rows)
        listed = (
            folders.dicom_rows(self.root)
            if self.name == "dicom"
            else folders.class_rows(self.root, self.options.get("question", ""))
        )
        return tables.plan_rows(table.path, table.form, rows, listed)

    def _limited(self, chunk: Chunk, left: dict[str, int | None]) -> Chunk:
        """Keep the rows of a stretch that are still wanted; rows that are refused stay, and are not counted."""
        kept = set()
        for number, item in self._numbered(chunk):
            split = self.prepared_split(item.split, False) if isinstance(item, Record) else None
            if isinstance(item, Refusal):
                kept.add(number)
            elif split is not None and (rest := left.get(split)):
                left[split] = rest - 1
                kept.add(number)
        return dataclasses.replace(chunk, lines=frozenset(kept))

    def read(self, chunk: Chunk) -> Iterator[Record | Refusal]:
        """Yield the records of one stretch."""
        return (item for _, item in self._numbered(chunk))

    def _numbered(self, chunk: Chunk) -> Iterator[tuple[int, Record | Refusal]]:
        """Yield (row number, record); rows in another language, or that a set leaves out, are not there."""
        table, stretch = chunk.table, chunk.stretch
        number = stretch.first - 1
        wanted = None if self.set.adapt else table.columns.used()
        try:
            for number, row in tables.rows(stretch, wanted):
                if chunk.lines is not None and number not in chunk.lines:
                    continue
                found = self._record(table, row, number)
                if found is not None:
                    yield number, found
        except Unfit as unfit:
            left = stretch.first + stretch.rows - (number + 1)
            yield number + 1, self._refusal(f"{table.path.name}:{number + 1}", unfit, max(1, left))

    def _refusal(self, row_id: str, unfit: Unfit, rows: int = 1) -> Refusal:
        return Refusal(self.label, row_id[:200], unfit.reason, unfit.detail[:200], rows=rows)

    def _record(self, table: Table, row: Row, number: int) -> Record | Refusal | None:
        row_id = f"{table.path.name}:{number}"
        try:
            if isinstance(row, Unfit):
                raise row
            if self.set.adapt is not None:
                adapted = self.set.adapt(row, table.path, number, self.options)
                if adapted is None:
                    return None
                row = adapted
            language = table.columns.text(row, "language", "")
            if self.options.get("language", "all") not in ("all", language or "all"):
                return None
            row_id = table.columns.text(row, "id", "") or row_id
            return _record(self, table, row, number)
        except Unfit as unfit:
            return self._refusal(row_id, unfit)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            # A row of an unforeseen shape is the row's fault; the type of the error says enough.
            return self._refusal(row_id, Unfit("bad_field", f"{type(error).__name__}: {error}"[:160]))

    def recognised(self) -> list[dict[str, Any]]:
        """Return what was taken for what, table by table, equal tables together."""
        found: list[dict[str, Any]] = []
        for table in self.tables:
            facts = table.columns.as_json()
            if table.columns.roles.get("image") and (table.place.archive or table.place.folder != self.root):
                facts["images_in"] = (table.place.archive or table.place.folder).name
            same = next((one for one in found if one == {"tables": one["tables"]} | facts), None)
            if same is None:
                found.append(same := {"tables": []} | facts)
            same["tables"].append(table.path.name)
        return found


def _record(source: Source, table: Table, row: Mapping[str, Any], number: int) -> Record:
    columns = table.columns
    split = table.split
    word = " ".join(map(said, columns.values(row, "split")))
    if word or ("split" in columns.roles and table.form.kind != "folder"):
        split = split_of_word(word, source.words()) or ""
        if not split:
            what = f"{word[:60]!r}; map it with ?train=, ?val=, ?test= or ?skip="
            raise Unfit(
                "unknown_split", what if word else "the row names no part: write one, or read no parts with ?split=none"
            )
    images = tuple(ref for value in columns.values(row, "image") for ref in table.place.refs(value))
    for name in columns.roles.get("image", ()):
        if isinstance(row.get(name), bool | int | dict) and not columns.values({name: row[name] or None}, "image"):
            raise Unfit("bad_field", f"an image given as {row[name]!r}"[:80])
    # A slot at either end is the set's own placeholder for an image, as in LLaVA's tables; ours are written anew.
    question = columns.text(row, "question")
    bare = question
    while (shorter := bare.removeprefix(IMAGE_SLOT).removesuffix(IMAGE_SLOT).strip()) != bare:
        bare = shorter
    slots = question.count(IMAGE_SLOT) - bare.count(IMAGE_SLOT)
    if slots > len(images) and not source.without_images:
        raise Unfit("missing_image", f"the question has places for {slots} images, and the row has {len(images)}")
    question = bare if images else question
    stated_id = columns.text(row, "id", "")
    choices = choices_of(columns.roles.get("options", ()), row)
    letter = ""
    texts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    if choices and not _is_open(columns, row):
        right, reference = right_option(
            choices, columns.values(row, "letter"), columns.values(row, "answer"), columns.first_option,
            lettered="letter" in columns.roles,
        )  # fmt: skip
        kept = [(name, text) for name, text in choices if text]
        if len(kept) < 2:
            raise Unfit("no_answer", "fewer than two options")
        letter = LETTERS[[name for name, _ in kept].index(right)]
        texts = tuple(text for _, text in kept)
    else:
        reference, aliases = _reference(columns, row)
    modality = columns.text(row, "modality", "")
    if not modality and (tagged := _TAGGED.fullmatch(reference)) and not texts:
        modality, reference = tagged[1], tagged[2].strip()
    modality = cols.modality_of(modality)
    if modality and not is_modality(modality):
        raise Unfit("bad_modality", f"{modality[:60]!r} is none of the sixteen tags; ?modality=none reads no modality")
    for value in columns.values(row, "aliases"):
        aliases += cols.texts(value, "aliases")
    return Record(
        id=stated_id if stated_id and not table.counted_ids else f"{table.name}-{stated_id or number}",
        split=split,
        question=question,
        reference=reference,
        images=images,
        modality=modality or None,
        answer_kind=cols.kind_of(columns, row, reference, question, bool(texts)),
        aliases=aliases,
        choices=texts,
        letter=letter,
        passage=cols.passage_of(columns, row),
        group=columns.text(row, "group", ""),
        extra=cols.extra_of(columns, row),
        source=columns.text(row, "source", "") or None,
        has_own_id=bool(stated_id),
    )


def _is_open(columns: Columns, row: Mapping[str, Any]) -> bool:
    """Return whether a row of a set with options says that it has none."""
    stated = [cols.KINDS.get(cols.plain(str(value))) for value in columns.values(row, "answer_kind")]
    return stated[:1] == ["open"] and not columns.values(row, "letter")


def _reference(columns: Columns, row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the right answer and other right answers, where a list or a text with `#` states several."""
    values = columns.values(row, "answer")
    value = literal(values[0]) if values else None
    # `axial#transverse` and `left # right` are two answers each; `tooth #3` is one.
    if isinstance(value, str) and value.count("#") == len(_BETWEEN.findall(value)) > 0:
        value = value.split("#")
    if isinstance(value, list) and value:
        first, *others = cols.texts([item for item in value if present(item)], "answer") or ("",)
        return first, tuple(dict.fromkeys(other for other in others if other != first))
    return columns.text(row, "answer"), ()


def own_words(data_set: DataSet, options: Mapping[str, str]) -> dict[str, str]:
    """Return the words for parts that the set, or `?train=`, `?val=`, `?test=` and `?skip=`, give a meaning."""
    words = dict(data_set.splits)
    for split in (TRAIN, VAL, TEST, "skip"):
        words |= {word.strip().lower(): split for word in options.get(split, "").split(",") if word.strip()}
    return words
