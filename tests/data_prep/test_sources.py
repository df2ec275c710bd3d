"""Every source on small files of its real schema: columns, splits, modality, choices, packed images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.manifest import source_facts
from data_prep.records import Record, Refusal
from data_prep.sources import open_source, records
from data_prep.sources.catalogue import CATALOGUE as SOURCES
from medix.errors import ConfigError

Picture = Callable[..., bytes]


def read(specification: str, limit: int | None = None) -> list[Record | Refusal]:
    source = open_source(specification)
    return [item for chunk in source.chunks(3, limit) for item in source.read(chunk)]


def one(specification: str) -> Record:
    (found,) = read(specification)
    assert isinstance(found, Record), found
    return found


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_benchmark_s_test_part_is_never_trained_on_unasked(tmp_path: Path, picture: Picture) -> None:
    row = {"image": {"bytes": picture(1), "path": None}, "question": "is it?", "answer": "yes"}
    write_parquet(tmp_path / "data" / "test-00000-of-00001-e5bc3d.parquet", [row])
    source = open_source(f"vqa_rad:{tmp_path}")
    assert source.prepared_split("test", evaluation=False) is None
    assert source.prepared_split("test", evaluation=True) == "val"
    assert open_source(f"vqa_rad:{tmp_path}?splits=test").prepared_split("test", evaluation=False) == "val"


def test_csv_and_parquet_hold_what_jsonl_holds(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    write_csv(
        tmp_path / "test.csv",
        [{"question": "q, with\nlines", "answer": "7", "images": "a.png|a.png", "aliases": "x|y"}],
    )
    found = one(f"csv:{tmp_path}")
    assert (found.split, found.question, found.reference, found.aliases) == ("test", "q, with\nlines", "7", ("x", "y"))
    assert [image.read(10**6) for image in found.images] == [picture(1)] * 2
    write_parquet(
        tmp_path / "p.parquet", [{"id": 1, "question": "q", "answer": 2.5, "image": picture(5), "split": "val"}]
    )
    found = one(f"parquet:{tmp_path / 'p.parquet'}")
    assert (found.id, found.reference, found.split, found.images[0].read(10**6)) == ("1", "2.5", "val", picture(5))


def test_image_folder_of_classes_and_with_a_table(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/clear_lung/a.png", "test/pneumonia/b.png"):
        (tmp_path / "classes" / name).parent.mkdir(parents=True)
        (tmp_path / "classes" / name).write_bytes(picture(1))
    found = read(f"image_folder:{tmp_path / 'classes'}?question=What is seen?&modality=X_RAY")
    got = [(r.split, r.reference, r.question, r.modality) for r in found if isinstance(r, Record)]
    assert got == [("test", "pneumonia", "What is seen?", "X_RAY"), ("train", "clear lung", "What is seen?", "X_RAY")]
    with pytest.raises(ConfigError, match="question"):
        read(f"image_folder:{tmp_path / 'classes'}")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "c.png").write_bytes(picture(2))
    write_csv(tmp_path / "table" / "metadata.csv", [{"file_name": "c.png", "question": "Side?", "answer": "left"}])
    found_one = one(f"image_folder:{tmp_path / 'table'}")
    assert (found_one.id, found_one.reference, found_one.images[0].read(10**6)) == ("metadata-0", "left", picture(2))


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "images/../../secret.png"])
def test_an_image_path_may_not_leave_its_folder(path: str, tmp_path: Path, picture: Picture) -> None:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture(1))
    (root / "train.jsonl").write_text(json.dumps({"question": "q", "answer": "a", "images": [path]}) + "\n")
    found = one(f"jsonl:{root}")
    with pytest.raises(ValueError, match="image_outside_folder"):
        found.images[0].read(10**6)


def test_every_source_says_where_it_comes_from() -> None:
    for name, known in SOURCES.items():
        assert known.licence, name
        assert not known.repository or (known.fetch and known.home), name


def test_a_hub_source_without_its_files_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="MEDIX_DATA_MIRROR"):
        open_source("slake")
    (tmp_path / "BoKelvin" / "SLAKE").mkdir(parents=True)
    row = {"question": "q", "answer": "a", "q_lang": "en"}
    (tmp_path / "BoKelvin" / "SLAKE" / "test.json").write_text(json.dumps([row]))
    monkeypatch.setenv("MEDIX_DATA_MIRROR", str(tmp_path))
    mirrored = open_source("slake")
    assert mirrored.root == tmp_path / "BoKelvin" / "SLAKE"
    assert mirrored.revision == ""  # what the mirror copied is not known
    assert open_source("slake?revision=v1").revision == "v1"
    own = tmp_path / "snapshots" / "march"  # a folder of the user's, which is no commit
    own.mkdir(parents=True)
    (own / "test.json").write_text(json.dumps([row]))
    assert [open_source(f"table:{own}{query}").revision for query in ("", "?revision=v1")] == ["", "v1"]


def test_the_manifest_has_the_commit_that_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set without a pinned revision, or with a branch for one, the commit would be lost."""
    snapshot = tmp_path / "snapshots" / ("c0ffee" * 7)[:40]
    snapshot.mkdir(parents=True)
    (snapshot / "test.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}))
    asked: list[str | None] = []

    def fetch(_repository: str, *, revision: str | None, **_where: Any) -> str:
        asked.append(revision)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for query in ("", "?revision=main"):
        source = open_source(f"hub:someone/something{query}")
        assert source_facts(source)["revision"] == snapshot.name
    assert asked == [None, "main"]


def test_stretches_cover_a_table_once(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"q{i}", "answer": "a"}) for i in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:4], "", *lines[4:]]))  # an empty line, no last line end
    assert [r.question for r in read(f"jsonl:{tmp_path}") if isinstance(r, Record)] == [f"q{i}" for i in range(10)]
    table = pa.Table.from_pylist([{"question": f"q{i}", "answer": "a"} for i in range(10)])
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    assert [r.question for r in read(f"parquet:{tmp_path}") if isinstance(r, Record)] == [f"q{i}" for i in range(10)]
    assert len(read(f"parquet:{tmp_path}", limit=5)) == 5
    assert len(list(records(f"parquet:{tmp_path}", ["train"], limit=4))) == 4


def test_a_line_beyond_the_bound_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.sources.tables.MAX_LINE_BYTES", 64)
    lines = [json.dumps({"question": f"q{i}" + "x" * (200 if i == 2 else 0), "answer": "a"}) for i in range(5)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    found = read(f"jsonl:{tmp_path}")  # in stretches of three: the second begins behind the long line
    assert [item.question if isinstance(item, Record) else item.reason for item in found] == [
        "q0", "q1", "line_too_long", "q3", "q4",
    ]  # fmt: skip


@pytest.mark.parametrize(("numbers", "first"), [([1, 4], 1), ([0, 2], 0), ([-1, 1, 4], 1), ([-1, -1], 0)], ids=str)
def test_where_options_are_counted_from(numbers: list[int], first: int, tmp_path: Path) -> None:
    """MedMCQA writes -1 for an answer that it keeps secret, which says nothing on the others."""
    options = {"opa": "a1", "opb": "b1", "opc": "c1", "opd": "d1"}
    path = write_parquet(tmp_path / "test.parquet", [{"question": "Which?", **options, "cop": cop} for cop in numbers])
    assert open_source(f"parquet:{path}").tables[0].columns.first_option == first
    refused = [item.reason for item in read(f"parquet:{path}") if isinstance(item, Refusal)]
    assert refused == ["no_answer"] * numbers.count(-1)
