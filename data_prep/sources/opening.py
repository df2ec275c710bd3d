"""Open a data set by its specification: find its tables and tell what their columns, parts and images are."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from data_prep.records import DicomView, Record, Refusal, Unfit
from data_prep.sources import columns as cols
from data_prep.sources import folders, image_places, tables
from data_prep.sources.catalogue import CATALOGUE, DataSet
from data_prep.sources.columns import Columns
from data_prep.sources.conversations import conversation_in
from data_prep.sources.image_checks import check_images, check_table
from data_prep.sources.image_places import ImagePlace
from data_prep.sources.reader import Source, Table, own_words
from data_prep.sources.splits import SPLITS, TEST, TRAIN, VAL, split_of_path, split_of_word
from medix.errors import ConfigError
from medix.options import suggest

MIRROR: Final = "MEDIX_DATA_MIRROR"
"""Environment variable: a folder that holds `OWNER/NAME` folders, as `hf download --repo-type dataset` writes them."""
RESULTS: Final = ("quarantine.jsonl", "generations.jsonl", "scored.jsonl")
"""What `medix prepare`, `medix eval` and a training run leave in their folders."""
PREPARED: Final = ("train.parquet", "val.parquet", "manifest.json")
"""What else `medix prepare` writes."""
SAMPLED: Final = 200
"""Rows of each table that are looked at to tell what its columns are."""
COMMON: Final = (
    "name", "licence", "revision", "splits", TRAIN, VAL, TEST, "skip", "columns", "files", "image_root", "text_only",
    "language",
    "first_option", "frame", "window", *(role for role in cols.MAPPED if role not in ("language", "source")),
)  # fmt: skip
"""Options that every source has."""


def records(
    specification: str, splits: Sequence[str] | None = None, limit: int | None = None
) -> Iterator[Record | Refusal]:
    """Yield the rows of a data set in its own order, each a record or the reason why it is none.

    Args:
        specification: as for `medix prepare`, e.g. `slake`, `jsonl:my/rows.jsonl?image=scan`.
        splits: wanted parts, by any of their names (`test`, `validation`); None for the set's evaluation parts.
        limit: most records; refusals are not counted.

    Raises:
        ConfigError: there is no such source, or its columns or parts cannot be told.

    Example:
        >>> rows = list(records("sample", ["test"], limit=2))
        >>> rows[0].split, len(rows)
        ('test', 2)
    """
    source = open_source(specification)
    if splits is None:
        wanted = [split for split in (TRAIN, VAL, TEST) if source.prepared_split(split, evaluation=True)]
    else:
        wanted = [split_of_word(word, source.words()) or word for word in splits]
    kept = 0
    for chunk in source.chunks(256, None):
        # A refused row may be of any part if a column names the parts.
        of_refusals = "" if "split" in chunk.table.columns.roles else chunk.table.split
        for item in source.read(chunk):
            split = item.split if isinstance(item, Record) else of_refusals
            if split and split not in wanted:
                continue
            if isinstance(item, Record):
                if kept == limit:
                    return
                kept += 1
            yield item


def open_source(specification: str) -> Source:
    """Bind a source to its files: `NAME`, `NAME:PATH`, `NAME:PATH?option=value&option=value`.

    Raises:
        ConfigError: there is no such source or option, nothing at its path, or what a column or a part means cannot
            be told.
    """
    head, _, query = specification.partition("?")
    name, _, path = head.partition(":")
    if name not in CATALOGUE:
        raise ConfigError(
            f"There is no data source {name!r}. {suggest(name, CATALOGUE)}",
            f"For local files write e.g. table:{name}. Known are: {', '.join(CATALOGUE)}.",
        )
    data_set = CATALOGUE[name]
    known = (*COMMON, *data_set.options)
    options = dict(data_set.defaults)
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise ConfigError(f"Source {name} has no option ?{key}=. {suggest(key, known)}", "Correct the option.")
        options[key] = value
    if set(options.get("splits", TRAIN).split(",")) - {*SPLITS, *own_words(data_set, options)}:
        raise ConfigError(
            f"?splits={options['splits']} names an unknown part.", f"Known names are: {', '.join(SPLITS)}."
        )
    if options.get("first_option", "0") not in ("0", "1", "none"):
        raise ConfigError(f"?first_option={options['first_option']} is no number of an option.", "Write 0, 1 or none.")
    stated = options.pop("revision", "")
    wanted = stated or data_set.revision
    root = Path(path).expanduser() if path and name != "hub" else _default_root(name, data_set, path, wanted, options)
    if not root.exists():
        raise ConfigError(f"Source {name!r} has no files at {root}.", f"Correct the path: {name}:PATH.")
    # The Hub's cache names a folder by its commit. Of any other copy nobody knows the revision but who states it.
    is_snapshot = root.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", root.name)
    revision = root.name if is_snapshot else stated
    source = Source(specification, name, root, revision, options)
    if name in ("image_folder", "dicom") and not folders.has_metadata(root):
        fixed = {"modality": options["modality"]} if "modality" in options else {}
        columns = Columns(folders.ROLES, fixed, (), ())
        place = ImagePlace(root, view=_view(options))
        return dataclasses.replace(source, tables=(Table(root, TRAIN, tables.Form("folder"), columns, place),))
    return _with_tables(source)


def check_apart(out: Path, source: Source) -> None:
    """Refuse a folder of results inside of a source: they would be read as its data, or take the place of its files.

    Raises:
        ConfigError: `out` is the source's folder or lies in it, or the source is a file that would be written there.
    """
    place = out.resolve()
    root = source.root.resolve()
    if place.is_relative_to(root) or root in [place / name for name in (*RESULTS, *PREPARED)]:
        raise ConfigError(
            f"--out {out} lies in the data of {source.specification}: results would be read as data, or overwrite it.",
            "Name a folder beside the data with --out.",
        )


def _view(options: Mapping[str, str]) -> DicomView:
    """Return which picture of a DICOM file `?frame=` and `?window=` ask for.

    Raises:
        ConfigError: the window is no pair of finite numbers, with a width of 1 or more.
    """
    stated = options.get("window", "")
    try:
        window = tuple(float(part) for part in stated.split(",")) if stated else None
        if window is not None and not (len(window) == 2 and all(map(math.isfinite, window)) and window[1] >= 1):
            raise ValueError(stated)
    except ValueError as error:
        raise ConfigError(f"?window={stated} is no window.", "Write centre and width, e.g. ?window=40,400.") from error
    return DicomView(options.get("frame", "middle"), (window[0], window[1]) if window else None)


def _default_root(name: str, data_set: DataSet, path: str, revision: str, options: Mapping[str, str]) -> Path:
    """Return the folder of a set that its specification names no path for: a mirror, the hub's cache, or the hub."""
    if data_set.root is not None:
        return data_set.root
    repository = path if name == "hub" else data_set.repository
    if not repository:
        raise ConfigError(f"Source {name!r} has no path.", f"Write {name}:PATH.")
    mirror = os.environ.get(MIRROR)
    if mirror and (folder := Path(mirror).expanduser() / repository).is_dir():
        return folder
    fix = f"Copy it and write {name}:PATH, or set {MIRROR} to the folder that holds {repository}."
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError("huggingface_hub is not installed.", f"pip install 'medix[cpu]' or [gpu]. {fix}") from error
    wanted = [f"{config}/*" for config in options.get("config", "").split(",") if config]
    wanted += [pattern for pattern in options.get("files", "").split(",") if pattern]
    wanted = (wanted and [*wanted, "*.zip"]) or list(data_set.fetch)
    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision or None, "allow_patterns": wanted or None}
    try:
        return Path(snapshot_download(repository, **where, local_files_only=os.environ.get("HF_HUB_OFFLINE") == "1"))
    except Exception as error:
        # The hub's client has its own errors, and those of two HTTP libraries: offline, gated, not found.
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"The data set {repository} cannot be fetched: {reason}", fix) from error


def _with_tables(source: Source) -> Source:
    """Find the tables of a source and tell what their columns, parts and images are."""
    data_set = source.set
    options = source.options
    mapping = {role: options[role] for role in (*cols.MAPPED, "first_option") if role in options and role != "language"}
    header = [name.strip() for name in options.get("columns", "").split(",") if name.strip()]
    found: list[Table] = []
    passed_over: dict[Path, tuple[str, ...]] = {}
    with_images = False
    for path in _table_paths(source):
        try:
            form = tables.form_of(path, header)
            form, columns, names, rows = _recognised(source, path, form, mapping)
        except Unfit as unfit:
            raise ConfigError(
                f"{path} cannot be read: {unfit.detail}.",
                "Restore the file, or name the tables to read with ?files=.",
            ) from unfit
        if columns is None:
            passed_over[path] = names
            continue
        place = image_places.find_place(
            (value for row in rows for value in columns.values(row, "image")), path, source.root,
            data_set.image_folders, options.get("image_root", ""),
        )  # fmt: skip
        ids = [str(value) for row in rows for value in columns.values(row, "id")]
        counted = bool(ids) and all(map(str.isdecimal, ids))
        place = dataclasses.replace(place, view=_view(options))
        found.append(Table(path, "", form, columns, place, counted_ids=counted))
        check_table(source, found[-1], rows)
        unseen = len(rows) >= SAMPLED and "image" in columns.roles
        with_images = with_images or unseen or any(columns.values(row, "image") for row in rows)
    _check_passed_over(source, bool(found), passed_over)
    found = _with_splits(source, found)
    check_images(source, found, with_images)
    stems = Counter(table.path.stem for table in found)
    splits = Counter(table.split for table in found)
    for number, table in enumerate(found):
        name = table.path.stem
        if stems[name] > 1:
            name = "-".join(table.path.relative_to(source.root).with_suffix("").parts)
        counted = table.counted_ids and splits[table.split] > 1
        found[number] = dataclasses.replace(table, name=name, counted_ids=counted)
    return dataclasses.replace(source, tables=tuple(found), passed_over=tuple(path.name for path in passed_over))


def _recognised(
    source: Source, path: Path, form: tables.Form, mapping: Mapping[str, str]
) -> tuple[tables.Form, cols.Columns | None, tuple[str, ...], list[Mapping[str, Any]]]:
    """Return how a table is read, what its columns are, their names, and its first rows.

    A table without question and answer columns is looked at for conversations that hold both.
    """
    data_set = source.set
    names, rows = tables.sample(path, form, SAMPLED)
    rows, names = _adapted(source, path, rows, names)
    columns = cols.recognise(path.name, names, rows, mapping, data_set.columns, source.words(), data_set.first_option)
    if columns is None and not form.conversation and (name := conversation_in(rows)):
        return _recognised(source, path, dataclasses.replace(form, conversation=name), mapping)
    return form, columns, names, rows


def _adapted(
    source: Source, path: Path, rows: list[Mapping[str, Any]], names: tuple[str, ...]
) -> tuple[list[Mapping[str, Any]], tuple[str, ...]]:
    if source.set.adapt is None:
        return rows, names
    found = []
    for number, row in enumerate(rows):
        try:
            if (adapted := source.set.adapt(row, path, number, source.options)) is not None:
                found.append(adapted)
        except (Unfit, KeyError, TypeError, AttributeError):
            continue
    return found, tuple(dict.fromkeys([key for row in found for key in row])) or names


def _table_paths(source: Source) -> list[Path]:
    root, data_set = source.root, source.set
    if root.is_file():
        return [root]
    suffixes = data_set.suffixes or (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".psv", ".parquet", ".pq")
    tiers = list(data_set.tables)
    if source.name in ("image_folder", "dicom"):
        tiers = [",".join(folders.METADATA)]
    if files := source.options.get("files"):
        tiers = [files]
    elif config := source.options.get("config"):
        tiers = [",".join(f"{name}/*" for name in config.split(",")), "*.parquet", "*.jsonl", "*.json"]
    every = sorted(path for path in root.rglob("*") if tables.is_table(path) and path.is_file())
    every = [path for path in every if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    packed = [p for p in every if p.suffix.lower() not in tables.FORMS and split_of_path(p, root, source.words())]
    every = [path for path in every if path.suffix.lower() in tables.FORMS]
    paths = [path for path in every if path.suffix.lower() in suffixes] if not tiers else []
    for tier in tiers:
        patterns = [pattern for pattern in tier.split(",") if pattern]
        if paths := [path for path in every if any(map(path.relative_to(root).match, patterns))]:
            break
    if packed and paths and not tiers:
        raise ConfigError(
            f"{packed[0].relative_to(root)} is named after a part of the set, but is no table that is read here.",
            "Unpack it or save it as CSV, or name the tables to read with ?files=.",
        )
    results = {path.parent for path in every if path.name in RESULTS} if not files else set()
    if read := [folder for folder in results if any(path.is_relative_to(folder) for path in paths)]:
        raise ConfigError(
            f"{read[0]} holds results of a medix command; its files would be read as questions of {root}.",
            "Move it out of the data and name another --out, or name the data's own files with ?files=.",
        )
    if not paths:
        others = sorted({"".join(path.suffixes[-2:]) for path in root.rglob("*") if path.is_file()} - {""})[:12]
        raise ConfigError(
            f"There is no table of source {source.name} under {root}; looked for {', '.join(tiers or suffixes)}.",
            f"Correct the path, or name the files with ?files=. Found there: {', '.join(others) or 'nothing'}.",
        )
    return paths


def _check_passed_over(source: Source, any_found: bool, passed_over: Mapping[Path, tuple[str, ...]]) -> None:
    """Refuse a table without question and answer if it is the only one, or named after a part of the set."""
    named = [path for path in passed_over if split_of_path(path, source.root, source.words())]
    for path in named or ([] if any_found else passed_over):
        names = ", ".join(map(str, passed_over[path])) or "none that can be read"
        raise ConfigError(
            f"{path.name} has no known question and answer columns; it has: {names}.",
            "Name them, e.g. ?question=COLUMN&answer=COLUMN, or the columns of a file without a header with "
            "?columns=image,question,answer.",
        )


def _with_splits(source: Source, found: list[Table]) -> list[Table]:
    """Give each table its split; a file that names none beside files that do is refused."""
    named = [split_of_path(table.path, source.root, source.words()) for table in found]
    result = []
    for table, splits in zip(found, named, strict=True):
        in_column = "split" in table.columns.roles
        if len(splits) > 1 or (not splits and any(named) and not in_column):
            what = f"names several parts ({', '.join(sorted(splits))})" if splits else "names no part of the set"
            raise ConfigError(
                f"{table.path.relative_to(source.root) if table.path != source.root else table.path.name} {what}.",
                f"Say which it is, e.g. ?train={table.path.stem} (or val, test, skip). "
                f"Known names are: {', '.join(SPLITS)}.",
            )
        result.append(dataclasses.replace(table, split=next(iter(splits), TRAIN)))
    return [table for table in result if table.split != "skip"]
