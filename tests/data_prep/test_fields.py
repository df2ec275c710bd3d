"""What single fields mean: options and their numbers, answers, parts, images, conversations of parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.records import Record
from data_prep.sources import records
from data_prep.sources.fields import number_of, present
from medix.errors import ConfigError

ALL = ("train", "val", "test")
QA = {"question": "Where?", "answer": "left"}
WORDS = ["aorta", "liver", "spleen", "kidney"]
NUMBERS = ["1", "2", "3", "4"]
OPS = {"opa": "aorta", "opb": "liver", "opc": "spleen", "opd": "kidney"}
NAMED = {"A": "aorta", "B": "liver", "C": "spleen"}


def asked(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"question": f"Which {n}?", **row} for n, row in enumerate(rows)]


def read(path: Path, content: list[dict[str, Any]] | str | bytes, query: str = "") -> list[Any]:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return list(records(f"table:{path}{query}", ALL))


MEANT: list[tuple[str, str, Any, str, list[str]]] = [
    ("numbers of options that are numbers", "a.jsonl",
     asked({"choices": NUMBERS, "answer": 2}, {"choices": WORDS, "answer": 0}), "", ["3", "aorta"]),
    ("numbers with a gap are floats", "a.parquet",
     asked(OPS | {"cop": 1.0}, OPS | {"cop": 4.0}, OPS | {"cop": None}), "", ["aorta", "kidney", "no_answer"]),
    ("numbers in CSV from 0", "a.csv", "question,A,B,C,answer\nq,x,y,z,0\nr,x,y,z,2\n", "", ["x", "z"]),
    ("numbers in CSV from 1", "a.csv", "question,A,B,C,answer\nq,x,y,z,1\nr,x,y,z,3\n", "", ["x", "z"]),
    ("the user says from where", "a.jsonl", asked({"choices": WORDS, "answer": 1}), "?first_option=1", ["aorta"]),
    ("numbers that are texts", "a.jsonl", asked({"choices": NUMBERS, "answer": "2"}), "", ["2"]),
    ("the user says that they are texts", "a.jsonl",
     asked({"choices": NUMBERS, "answer": 2}), "?first_option=none", ["2"]),
    ("options named by number", "a.jsonl", asked({"options": {"1": "x", "2": "y"}, "answer": "2"}), "", ["y"]),
    ("options named from 0", "a.jsonl", asked({"options": {"0": "x", "1": "y"}, "answer": 1}), "", ["y"]),
    ("the name of a column", "a.jsonl",
     asked({"option_a": "x", "option_b": "y", "correct_option": "option_b"}), "", ["y"]),
    ("answerKey beside label and text", "a.jsonl",
     asked({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}), "", ["y"]),
    ("options in one line", "a.jsonl", asked({"options": "A: aorta, B: vitamin B", "answer": "B"}), "", ["vitamin B"]),
    ("options with a separator between", "a.jsonl",
     asked({"options": "aorta | liver; lobe", "answer": "B"}, {"options": "|x|y|", "answer": "x"},
           {"options": "aorta\nliver", "answer": "liver"}, {"options": "a. aorta\nb. liver\nwrapped", "answer": "b"},
           {"options": "aorta; liver", "answer": "B"}), "", ["liver; lobe", "x", "liver", "bad_field", "bad_field"]),
    ("marks between separators, and an empty option before one", "a.jsonl",
     asked({"options": "1. aorta\n2. liver", "answer": "B"}, {"options": "- aorta | - liver", "answer": "B"},
           {"options": "|aorta|liver", "answer": "B"}, {"options": "1.5 mg|2.5 mg", "answer": "B"}),
     "", ["bad_field", "bad_field", "aorta", "2.5 mg"]),
    ("options as text in a column of another name", "a.jsonl",
     asked({"candidates": "['aorta', 'liver']", "answer": "liver"}), "", ["liver"]),
    ("columns of answers", "a.jsonl", asked({"answer_a": "x", "answer_b": "y", "correct_answer": "y"}), "", ["y"]),
    ("a sign that is no separator", "a.jsonl",
     asked({"answer": "tooth #3"}, {"answer": "C#"}, {"answer": "axial#transverse"}, {"answer": "a # b"}), "",
     ["tooth #3", "C#", "axial", "a"]),
    ("whole numbers with a gap", "a.parquet",
     asked({"answer": 3.0}, {"answer": 2.5}, {"answer": None}), "", ["3", "2.5", "no_answer"]),
    ("nan as text", "a.csv", "question,answer\nq,nan\nr,NaN\ns,none\n", "", ["no_answer", "no_answer", "none"]),
    ("truth values", "a.jsonl", asked({"answer": True}), "", ["bad_field"]),
    ("placeholders of images that are not there", "a.jsonl",
     [QA | {"question": "<image>\nWhere?"}, QA | {"question": "Where is <image> written?"}], "",
     ["missing_image", "left"]),
    ("placeholders, but no image is wanted", "a.jsonl",
     [QA | {"question": "<image>\nWhere?"}], "?text_only=true", ["left"]),
    ("a row that names no part", "a.jsonl",
     [QA | {"split": "train"}, QA | {"split": None}], "", ["left", "unknown_split"]),
]  # fmt: skip
"""What, file, its content, options, and of each row the answer or the reason why there is none."""


@pytest.mark.parametrize(("what", "name", "content", "query", "found"), MEANT, ids=[one[0] for one in MEANT])
def test_what_a_row_means(what: str, name: str, content: Any, query: str, found: list[str], tmp_path: Path) -> None:
    rows = read(tmp_path / name, content, query)
    assert [row.reference if isinstance(row, Record) else row.reason for row in rows] == found
    for row in rows:
        assert not isinstance(row, Record) or not row.choices or row.choices["ABCD".index(row.letter)] == row.reference


def test_labels_with_a_separator_are_no_options(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.jsonl", asked({"finding_labels": "effusion|mass", "answer": "mass"}))
    assert (row.reference, row.choices) == ("mass", ())


REFUSED: list[tuple[str, str, Any, str]] = [
    ("places or texts", "a.jsonl", asked({"choices": NUMBERS, "answer": 2}), r"answer of a.jsonl.*\?first_option=none"),
    ("no number of an option", "a.jsonl?first_option=2", asked({"choices": WORDS, "answer": 2}), "first_option=2"),
    ("wrong options in columns of their own", "a.jsonl", asked({"answer": "x", "distractor1": "y", "distractor2": "z"}),
     r"distractor1, distractor2.*\?options="),
    ("a column of truth values for a part", "a.jsonl", [QA | {"is_test": True}, QA | {"is_test": False}],
     r"\?split=is_test&test=1,true,yes&train=0"),
    ("a second column of images", "a.jsonl", [QA | {"image": "i.png", "image2": "j.png"}], r"\?image=image\+image2"),
    ("names of images without an ending", "a.jsonl", [QA | {"Image_ID": "i"}], r"\?image=Image_ID"),
    ("addresses of images", "a.jsonl", [QA | {"image_url": "https://x.org/17"}], r"\?image=image_url"),
    ("a column of images that is empty", "a.jsonl", [QA | {"image": None}], "No row .* has an image"),
    ("UTF-16", "a.csv", "question,answer\nq,a\n".encode("utf-16"), "UTF-16"),
    ("UTF-16 without a mark", "a.csv", "question,answer\nq,a\n".encode("utf-16-le"), "NUL bytes"),
    ("packed", "a.jsonl.gz", b"\x1f\x8b\x08\x00", "gzip"),
    ("a workbook", "a.xlsx", b"PK\x03\x04....", "save it as CSV"),
    ("a header in another encoding", "a.csv", "question,answer,größe\nq,a,1\n".encode("latin-1"), "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "content", "message"), REFUSED, ids=[one[0] for one in REFUSED])
def test_refused_by_the_name_of_its_column(what: str, name: str, content: Any, message: str, tmp_path: Path) -> None:
    for image in "ij":
        (tmp_path / f"{image}.png").write_bytes(b"\x89PNG")
    name, _, query = name.partition("?")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name, content, query and f"?{query}")


def test_a_column_named_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array(["a"]), pa.array(["b"])], names=["question", *["answer"] * 2]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="names a column twice"):
        list(records(f"table:{tmp_path}", ALL))


@pytest.mark.parametrize("name", ["test.csv.gz", "test.xlsx", "dev.arrow"])
def test_a_part_in_a_form_that_is_not_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("question,answer\nq,a\n")
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ConfigError, match=name):
        list(records(f"table:{tmp_path}", ALL))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["训练集.jsonl", "测试集.jsonl"], {"训练集": "train", "测试集": "test"}),
        (["entrenamiento.jsonl", "prueba.jsonl"], {"entrenamiento": "train", "prueba": "test"}),
        (["x/test/a.jsonl", "x/TRAIN/b.jsonl"], {"a": "test", "b": "train"}),
        (["held-out.jsonl", "Train_set.jsonl", "valid_data.jsonl"],
         {"held-out": "test", "Train_set": "train", "valid_data": "val"}),
    ],
    ids=["Chinese", "Spanish", "folders", "words"],
)  # fmt: skip
def test_parts_by_the_names_of_files(names: list[str], splits: dict[str, str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(QA) + "\n", encoding="utf-8")
    found = list(records(f"table:{tmp_path}", ALL))
    assert {item.id.rpartition("-")[0]: item.split for item in found if isinstance(item, Record)} == splits


PICTURE = {"type": "image"}
TEXT = {"type": "text", "text": "Where?"}


@pytest.mark.parametrize(
    ("asks", "more", "images"),
    [
        ([PICTURE, TEXT], {"images": ["i.png"]}, 1),
        ([PICTURE | {"image": "i.png"}, TEXT], {}, 1),
        ([{"type": "image_url", "image_url": {"url": "i.png"}}, TEXT], {}, 1),
        ([TEXT], {}, 0),
        ([PICTURE, TEXT], {}, "places for 1 images"),
        ([PICTURE | {"image": "i.png"}, TEXT], {"images": ["j.png"]}, "either may be meant"),
        ([{"type": "video", "video": "a.mp4"}, TEXT], {}, "part of type 'video'"),
    ],
    ids=["of the row", "in the part", "as OpenAI writes it", "text", "none", "both", "a film"],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_messages_of_parts(
    asks: list[Any], more: dict[str, Any], images: int | str, suffix: str, tmp_path: Path
) -> None:
    if images == 1:
        (tmp_path / "i.png").write_bytes(b"\x89PNG")
    whole = {"messages": [{"role": "user", "content": [TEXT]}, {"role": "assistant", "content": [TEXT]}]}
    turns = [{"role": "user", "content": asks}, {"role": "assistant", "content": [{"type": "text", "text": "left"}]}]
    rows = [{"messages": turns, **more}, whole]
    item = read(tmp_path / f"a.{suffix}", rows)[0]
    if isinstance(images, str):
        assert images in item.detail
    else:
        assert (item.question, item.reference, len(item.images)) == ("Where?", "left", images)


@pytest.mark.parametrize(
    ("content", "splits"),
    [
        ({"train": [QA], "test": [QA]}, ["train", "test"]),
        ({"test": [QA], "info": {"year": 1}}, ["test"]),
        ({"train": {"1": QA}, "val": {"1": QA}}, ["train", "val"]),
    ],
    ids=["lists", "one part", "by id"],
)
def test_parts_inside_of_one_json_file(content: Any, splits: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(content))
    assert [item.split for item in records(f"table:{tmp_path}", ALL) if isinstance(item, Record)] == splits


def test_missing_values_and_whole_numbers() -> None:
    assert [present(value) for value in ("nan", " NaN", "<NA>", "", float("nan"), None)] == [False] * 6
    assert [present(value) for value in ("none", "NA", 0, 0.0, "nanometre")] == [True] * 5
    assert [number_of(value) for value in (2, 2.0, "2", "2.0", "-1")] == [2, 2, 2, 2, -1]
    assert [number_of(value) for value in (2.5, True, "two", "²", None, [2])] == [None] * 6
