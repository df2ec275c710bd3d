"""Every source on small files of its real schema: columns, splits, modality, choices, packed images."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.records import Record, Refusal
from data_prep.rows import rendered
from data_prep.sources import open_source, records
from data_prep.sources.catalogue import CATALOGUE as SOURCES
from medix.errors import ConfigError

Picture = Callable[..., bytes]
CHOICE = {"A": "aorta", "B": "liver", "C": "spleen", "D": "kidney"}


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


def test_medix_rl(tmp_path: Path, picture: Picture) -> None:
    image = [{"bytes": picture(1), "path": "a.png"}, {"bytes": picture(2), "path": None}]
    row = {"id": "7", "image": image, "source": "vqa-rad", "problem": "<image>Where? ", "solution": "<X_RAY> left lung"}
    untagged = row | {"id": "8", "image": [], "solution": "5 < 7"}
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [row, untagged])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row | {"id": "9", "solution": "<CT_SCAN> B"}])
    found = {item.id: item for item in read(f"medix_rl:{tmp_path}") if isinstance(item, Record)}
    assert (found["7"].question, found["7"].reference, found["7"].modality) == ("Where?", "left lung", "X_RAY")
    assert (found["7"].source, len(found["7"].images)) == ("medix_rl/vqa-rad", 2)
    assert (found["8"].reference, found["8"].modality, found["8"].images) == ("5 < 7", None, ())
    assert (found["9"].split, found["9"].answer_kind) == ("test", "open")
    source = open_source(f"medix_rl:{tmp_path}")
    assert [source.prepared_split(split, False) for split in ("train", "test")] == ["train", "val"]


@pytest.mark.parametrize("name", ["vqa_rad", "path_vqa"])
def test_one_image_one_question(name: str, tmp_path: Path, picture: Picture) -> None:
    row = {"image": {"bytes": picture(1), "path": None}, "question": "is it?", "answer": "yes"}
    write_parquet(tmp_path / "data" / "test-00000-of-00001-e5bc3d.parquet", [row])
    found = one(f"{name}:{tmp_path}")
    assert (found.split, found.reference, found.images[0].read(10**6)) == ("test", "yes", picture(1))
    source = open_source(f"{name}:{tmp_path}")
    assert source.prepared_split("test", evaluation=False) is None  # never trained on unasked
    assert source.prepared_split("test", evaluation=True) == "val"
    assert open_source(f"{name}:{tmp_path}?splits=test").prepared_split("test", evaluation=False) == "val"


@pytest.mark.parametrize("packed", [False, True])
def test_slake(packed: bool, tmp_path: Path, picture: Picture) -> None:
    row = {"img_name": "xmlab1/source.jpg", "question": "What?", "answer": "Liver", "q_lang": "en", "qid": 11}
    rows = [
        row | {"modality": "CT"},
        row | {"q_lang": "zh", "modality": "CT", "qid": 10},
        row | {"qid": 12, "modality": "Smell"},
    ]
    (tmp_path / "validation.json").write_text(json.dumps(rows))
    if packed:
        with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as archive:
            archive.writestr("imgs/xmlab1/source.jpg", picture(3))
    else:
        (tmp_path / "imgs" / "xmlab1").mkdir(parents=True)
        (tmp_path / "imgs" / "xmlab1" / "source.jpg").write_bytes(picture(3))
    english, refused = read(f"slake:{tmp_path}")
    assert isinstance(english, Record)
    assert (english.id, english.modality, english.images[0].read(10**6)) == ("11", "CT_SCAN", picture(3))
    assert isinstance(refused, Refusal)
    assert refused.reason == "bad_modality"


@pytest.mark.parametrize(
    ("answer", "label"), [("liver", "B"), (" B:liver ", None), ("B", None)], ids=["v1", "both", "v2"]
)
def test_pmc_vqa(answer: str, label: str | None, tmp_path: Path, picture: Picture) -> None:
    row = {
        "Figure_path": "PMC1_F1.jpg",
        "Question": "Which?",
        "Answer": answer,
        "Choice A": " A:aorta ",
        "Choice B": " B:liver ",
    }
    row |= {"Choice C": "C: spleen", "Choice D": "D. kidney"} | ({"Answer_label": label} if label else {})
    write_csv(tmp_path / "test.csv", [row])
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("images/PMC1_F1.jpg", picture(4))
    found = one(f"pmc_vqa:{tmp_path}")
    assert (found.question, found.choices) == ("Which?", ("aorta", "liver", "spleen", "kidney"))
    assert (found.reference, found.letter, found.answer_kind) == ("liver", "B", "choice")
    assert rendered(found) == ("Which?\nA. aorta\nB. liver\nC. spleen\nD. kidney", ("B", "B. liver"))
    assert found.images[0].read(10**6) == picture(4)


def test_medqa(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "spleen", "options": CHOICE, "meta_info": "step1", "answer_idx": "C"}
    (tmp_path / "phrases_no_exclude_test.jsonl").write_text(json.dumps(row) + "\n")
    found = one(f"medqa:{tmp_path}")
    assert (found.split, found.reference, found.letter) == ("test", "spleen", "C")


def test_medmcqa(tmp_path: Path) -> None:
    row = {"id": "u1", "question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 3, "exp": None}
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [row, row | {"id": "u2", "cop": -1}])
    good, hidden = read(f"medmcqa:{tmp_path}")
    assert isinstance(good, Record)
    assert isinstance(hidden, Refusal)
    assert (good.reference, good.split, hidden.reason) == ("d", "train", "no_answer")


def test_mmlu(tmp_path: Path) -> None:
    row = {"question": "Which?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 1}
    write_parquet(tmp_path / "anatomy" / "test-00000-of-00001.parquet", [row])
    write_parquet(tmp_path / "astronomy" / "test-00000-of-00001.parquet", [row])
    found = one(f"mmlu:{tmp_path}")
    assert (found.id, found.reference) == ("test-00000-of-00001-0", "b")


def test_pubmedqa(tmp_path: Path) -> None:
    row = {"pubid": 21645374, "question": "Do they?", "context": {"contexts": ["One.", "Two."], "labels": ["A", "B"]}}
    row |= {"long_answer": "They do.", "final_decision": "maybe"}
    write_parquet(tmp_path / "pqa_labeled" / "train-00000-of-00001.parquet", [row])
    write_parquet(tmp_path / "pqa_artificial" / "train-00000-of-00001.parquet", [row])
    found = one(f"pubmedqa:{tmp_path}")
    assert (found.id, found.reference) == ("21645374", "maybe")
    assert (found.question, found.passage, found.letter) == ("Do they?", "A: One.\nB: Two.", "C")
    assert rendered(found)[0] == "A: One.\nB: Two.\n\nDo they?\nA. yes\nB. no\nC. maybe"


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
        assert not known.repository or known.revision or name == "medix_rl", name


def test_a_hub_source_without_its_files_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="MEDIX_DATA_MIRROR"):
        open_source("slake")
    (tmp_path / "BoKelvin" / "SLAKE").mkdir(parents=True)
    row = {"question": "q", "answer": "a", "q_lang": "en"}
    (tmp_path / "BoKelvin" / "SLAKE" / "test.json").write_text(json.dumps([row]))
    monkeypatch.setenv("MEDIX_DATA_MIRROR", str(tmp_path))
    assert open_source("slake").root == tmp_path / "BoKelvin" / "SLAKE"


def test_stretches_cover_a_table_once(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"q{i}", "answer": "a"}) for i in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:4], "", *lines[4:]]))  # an empty line, no last line end
    assert [r.question for r in read(f"jsonl:{tmp_path}") if isinstance(r, Record)] == [f"q{i}" for i in range(10)]
    table = pa.Table.from_pylist([{"question": f"q{i}", "answer": "a"} for i in range(10)])
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    assert [r.question for r in read(f"parquet:{tmp_path}") if isinstance(r, Record)] == [f"q{i}" for i in range(10)]
    assert len(read(f"parquet:{tmp_path}", limit=5)) == 5
    assert len(list(records(f"parquet:{tmp_path}", ["train"], limit=4))) == 4
