"""Layouts that people really have, each in a small file of its own: what goes in, as what, and what is refused.

The first table stands in docs/data.md; `MEDIX_WRITE_DOCS=1` writes it there again.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.records import Record, Unfit
from data_prep.rows import rendered
from data_prep.sources import open_source, records
from medix.errors import ConfigError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
ALL = ("train", "val", "test")


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (seed * 40 % 255, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, files: dict[str, Any]) -> None:
    """Write files by their suffix: bytes as they are, rows as JSON, JSON lines, text table, parquet or ZIP."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member in content:
                    archive.writestr(member, png())
        elif path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        elif path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
        elif path.suffix == ".jsonl" or name.endswith("lines.json"):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")


def choice(letter: str = "B", **more: Any) -> dict[str, Any]:
    options = {"A": "aorta", "B": "liver", "C": "spleen", "D": "kidney"}
    return {"question": "Which?", "options": options, "answer_idx": letter, "answer": options[letter]} | more


RAD = {
    "qid": 1,
    "image_name": "a.jpg",
    "image_organ": "HEAD",
    "answer": "yes",
    "answer_type": "CLOSED",
    "question": "q?",
}
SLAKE = {"img_name": "xmlab1/source.jpg", "question": "q?", "answer": "CT", "q_lang": "en", "modality": "CT", "qid": 1}
PMC = {
    "index": 0,
    "Figure_path": "f.jpg",
    "Caption": "c",
    "Question": "Which?",
    "Choice A": " A: aorta ",
    "Choice B": "B:liver",
}
PMC |= {"Choice C": " C: spleen", "Choice D": "", "Answer": "B", "split": "train"}
PUBMED = {"QUESTION": "Do they?", "CONTEXTS": ["One.", "Two."], "LABELS": ["AIM", "RESULTS"], "final_decision": "no"}
HF = {
    "id": "1",
    "sent1": "Which?",
    "sent2": "",
    "ending0": "aorta",
    "ending1": "liver",
    "ending2": "spleen",
    "label": 1,
}
QA = {"question": "Where?", "answer": "left"}


@dataclass(frozen=True)
class Layout:
    what: str
    files: dict[str, Any]
    source: str
    """Specification; PATH is the folder."""
    rows: int
    splits: dict[str, int]
    images: int = 0
    choices: int = 0
    reference: str = ""
    """Of the first row."""


LAYOUTS = [
    Layout(
        "VQA-RAD as published (OSF)",
        {"trainset.json": [RAD, RAD | {"qid": 2}], "testset.json": [RAD | {"qid": 3}], "images/a.jpg": png()},
        "vqa_rad:PATH",
        3,
        {"train": 2, "test": 1},
        images=3,
        reference="yes",
    ),
    Layout(
        "the same as a table of one's own",
        {"trainset.json": [RAD], "images/a.jpg": png()},
        "json:PATH",
        1,
        {"train": 1},
        1,
    ),
    Layout(
        "SLAKE unpacked",
        {
            "train.json": [SLAKE, SLAKE | {"q_lang": "zh", "qid": 2}],
            "validate.json": [SLAKE],
            "test.json": [SLAKE],
            "imgs/xmlab1/source.jpg": png(),
            "imgs/xmlab1/question.json": [SLAKE],
            "imgs/xmlab1/detection.json": [{"lung": [1]}],
            "imgs/xmlab1/mask.png": png(),
        },
        "slake:PATH",
        3,
        {"train": 1, "val": 1, "test": 1},
        images=3,
        reference="CT",
    ),
    Layout(
        "SLAKE, Chinese rows",
        {"test.json": [SLAKE, SLAKE | {"q_lang": "zh", "qid": 2}], "imgs/xmlab1/source.jpg": png()},
        "slake:PATH?language=zh",
        1,
        {"test": 1},
        images=1,
    ),
    Layout(
        "PubMedQA's ori_pqal.json",
        {"ori_pqal.json": {"11": PUBMED, "12": PUBMED}},
        "pubmedqa:PATH",
        2,
        {"train": 2},
        choices=2,
        reference="no",
    ),
    Layout("the same as a table", {"ori_pqal.json": {"11": PUBMED}}, "table:PATH", 1, {"train": 1}, reference="no"),
    Layout(
        "MedQA, 4 options (hub)",
        {"phrases_no_exclude_test.jsonl": [choice()]},
        "medqa:PATH",
        1,
        {"test": 1},
        choices=1,
        reference="liver",
    ),
    Layout(
        "MedQA, -hf (hub)",
        {"train_lines.json": [HF], "dev_lines.json": [HF | {"id": "2", "label": 0}]},
        "medqa:PATH",
        2,
        {"train": 1, "val": 1},
        choices=2,
        reference="aorta",
    ),
    Layout(
        "MedMCQA, its own JSON lines (cop from 1)",
        {
            "dev.jsonl": [
                {"id": n, "question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": n}
                for n in (1, 4)
            ]
        },
        "medmcqa:PATH",
        2,
        {"val": 2},
        choices=2,
        reference="a",
    ),
    Layout(
        "MedMCQA, parquet (cop from 0)",
        {
            "data/validation-0.parquet": [
                {"id": str(n), "question": "?w", "opa": "a", "opb": "b", "opc": "c", "opd": "", "cop": n}
                for n in (0, 2)
            ]
        },
        "medmcqa:PATH",
        2,
        {"val": 2},
        choices=2,
        reference="a",
    ),
    Layout(
        "MMLU as JSON lines",
        {"test.jsonl": [choice(subject="anatomy"), choice(subject="astronomy")]},
        "mmlu:PATH",
        1,
        {"test": 1},
        choices=1,
        reference="liver",
    ),
    Layout(
        "MMLU-Pro as JSON lines",
        {"test.jsonl": [choice(category="health")]},
        "jsonl:PATH",
        1,
        {"test": 1},
        choices=1,
        reference="liver",
    ),
    Layout(
        "MMLU, parquet",
        {
            "anatomy/test-0.parquet": [
                {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": n} for n in (0, 3)
            ]
        },
        "mmlu:PATH",
        2,
        {"test": 2},
        choices=2,
        reference="a",
    ),
    Layout(
        "PMC-VQA 2, packed, with the file list beside it",
        {
            "train_2.csv": [PMC],
            "images_2.zip": ["figures/f.jpg"],
            "oa_comm_use_file_list.csv": [{"File": "a.tar.gz", "PMID": "1"}],
        },
        "pmc_vqa:PATH",
        1,
        {"train": 1},
        images=1,
        choices=1,
        reference="liver",
    ),
    Layout(
        "VQA-Med 2019, pipes",
        {"VQAMed2019_Test_Questions.txt": "syn1|plane|which plane?|axial#transverse\n", "Images/syn1.jpg": png()},
        "text:PATH?columns=image,category,question,answer",
        1,
        {"test": 1},
        images=1,
        reference="axial",
    ),
    Layout(
        "ROCO, captions by tabs",
        {"captions.txt": "ROCO_1\t A view.\nROCO_2\tA scan.\n", "images/ROCO_1.jpg": png(), "images/ROCO_2.jpg": png()},
        "text:PATH/captions.txt?columns=image,caption&question=What does it show?",
        2,
        {"train": 2},
        images=2,
        reference="A view.",
    ),
    Layout(
        "LLaVA-like: `text`, image first in it",
        {
            "test.jsonl": [{"question_id": 1, "image": "a.png", "text": "<image>\nWhere?", "answer": "left"}],
            "images/a.png": png(),
        },
        "jsonl:PATH",
        1,
        {"test": 1},
        images=1,
        reference="left",
    ),
    Layout(
        "instruction, input, output",
        {"medical_meadow.json": [{"instruction": "Answer.", "input": "Where?", "output": "left"}]},
        "json:PATH",
        1,
        {"train": 1},
        reference="left",
    ),
    Layout(
        "problem and solution with a tag",
        {
            "train.parquet": [
                {"problem": "Where?", "solution": "<X_RAY> left", "images": [{"bytes": png(), "path": None}]}
            ]
        },
        "parquet:PATH",
        1,
        {"train": 1},
        images=1,
        reference="left",
    ),
    Layout(
        "image as a data: URI",
        {"val.jsonl": [QA | {"image": "data:image/png;base64," + base64.b64encode(png()).decode()}]},
        "jsonl:PATH",
        1,
        {"val": 1},
        images=1,
    ),
    Layout(
        "options as a text of a list",
        {"test.csv": [{"question": "Which?", "options": "['liver', 'aorta']", "answer": "A"}]},
        "csv:PATH",
        1,
        {"test": 1},
        choices=1,
        reference="liver",
    ),
    Layout(
        "folders Training/ and Testing/",
        {"Training/rows.csv": [QA], "Testing/rows.csv": [QA]},
        "csv:PATH",
        2,
        {"train": 1, "test": 1},
    ),
    Layout("holdout.jsonl alone", {"holdout.jsonl": [QA]}, "jsonl:PATH", 1, {"test": 1}),
    Layout(
        "ids from 0 in every file",
        {"train.jsonl": [QA | {"id": 0}], "val.jsonl": [QA | {"id": 0}]},
        "jsonl:PATH",
        2,
        {"train": 1, "val": 1},
    ),
    Layout(
        "a JSON object that holds the list", {"dev.json": {"version": "1", "data": [QA]}}, "json:PATH", 1, {"val": 1}
    ),
    Layout(
        "semicolons",
        {"rows.csv": "question;answer\nWhere?;left, or right\n"},
        "csv:PATH",
        1,
        {"train": 1},
        reference="left, or right",
    ),
    Layout("patients", {"rows.csv": [QA | {"patient_id": "p1", "view": "AP"}]}, "csv:PATH", 1, {"train": 1}),
    Layout(
        "class folders",
        {"train/clear_lung/a.png": png(), "test/pneumonia/b.png": png(1)},
        "image_folder:PATH?question=What is seen?",
        2,
        {"train": 1, "test": 1},
        images=2,
        reference="pneumonia",
    ),
]


def facts(layout: Layout, root: Path) -> tuple[list[Record], str]:
    """Return the records and the line of the table in docs/data.md."""
    write(root, layout.files)
    specification = layout.source.replace("PATH", str(root))
    found = [item for item in records(specification, ALL) if isinstance(item, Record)]
    images = sum(len(ref.read(10**6)) > 0 for item in found for ref in item.images)
    splits = Counter(item.split for item in found)
    taken = open_source(specification).recognised()[0]["taken"]
    named = ", ".join(f"{role} `{'+'.join(names)}`" for role, names in taken.items())
    parts = ", ".join(f"{n} {split}" for split, n in sorted(splits.items()))
    line = f"| {layout.what} | `{layout.source}` | {layout.rows} | {len(found)} | {images} | {parts} | {named} |"
    return found, line.replace("|plane", "plane")


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.what for layout in LAYOUTS])
def test_layout(layout: Layout, tmp_path: Path) -> None:
    found, _ = facts(layout, tmp_path)
    assert Counter(item.split for item in found) == layout.splits
    assert len(found) == layout.rows
    assert sum(len(item.images) for item in found) == layout.images
    assert all(ref.read(10**6) == png() or ref.read(10**6) == png(1) for item in found for ref in item.images)
    assert sum(bool(item.choices) for item in found) == layout.choices
    assert all(item.choices["ABCDEFG".index(item.letter)] == item.reference for item in found if item.choices)
    assert all("<image>" not in item.question for item in found)
    if layout.reference:
        assert found[0].reference == layout.reference


def test_the_table_in_the_docs_is_what_was_tried(tmp_path: Path) -> None:
    lines = ["| layout | source | rows | kept | images | parts | taken |", "|---|---|---|---|---|---|---|"]
    lines += [facts(layout, tmp_path / str(number))[1] for number, layout in enumerate(LAYOUTS)]
    text = DOCS.read_text(encoding="utf-8")
    start, end = text.index("<!-- layouts -->"), text.index("<!-- end of layouts -->")
    table = "<!-- layouts -->\n" + "\n".join(lines) + "\n"
    if os.environ.get("MEDIX_WRITE_DOCS") == "1":
        DOCS.write_text(text[:start] + table + text[end:], encoding="utf-8")
    else:
        assert text[start:end] == table, "MEDIX_WRITE_DOCS=1 writes the table again"


def linked(root: Path) -> None:
    (root / "set").mkdir()
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "a.png").write_bytes(png())
    (root / "set" / "images").symlink_to(root / "elsewhere")
    write(root / "set", {"train.jsonl": [QA | {"image": "a.png"}]})


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("misspelt option", {"a.jsonl": [QA]}, "jsonl:PATH?image_rot=x", "image_root"),
    ("split for splits", {"train.jsonl": [QA]}, "jsonl:PATH?split=test", "no column 'test'"),
    ("unknown part to prepare", {"train.jsonl": [QA]}, "jsonl:PATH?splits=tset", "tset"),
    (
        "image_root that is not there",
        {"a.jsonl": [QA | {"image": "x.png"}]},
        "jsonl:PATH?image_root=nowhere",
        "nowhere",
    ),
    ("a file of no part beside parts", {"train.jsonl": [QA], "fold7.jsonl": [QA]}, "jsonl:PATH", r"\?train=fold7"),
    ("a file of two parts", {"train_test.jsonl": [QA]}, "jsonl:PATH", "several parts"),
    (
        "images beside, no column for them",
        {"train.jsonl": [QA | {"scan": "a"}], "scans/a.png": png()},
        "jsonl:PATH",
        r"\?image=",
    ),
    (
        "two columns of images",
        {"train.jsonl": [QA | {"left": "a.png", "right": "b.png"}], "a.png": png()},
        "jsonl:PATH",
        "left, right",
    ),
    (
        "letters without options",
        {"test.jsonl": [{"question": "Which?", "answer": "B", "w": "aorta", "x": "liver"}]},
        "jsonl:PATH",
        r"\?options=",
    ),
    (
        "numbers of options from who knows",
        {"test.jsonl": [{"question": "Which?", "choices": ["a", "b", "c"], "answer": 1}]},
        "jsonl:PATH",
        "first_option",
    ),
    ("columns of other names", {"train.jsonl": [{"frage": "q", "antwort": "a"}]}, "jsonl:PATH", "frage, antwort"),
    (
        "a part with other columns",
        {"train.jsonl": [QA], "test.jsonl": [{"frage": "q", "antwort": "a"}]},
        "jsonl:PATH",
        "frage, antwort",
    ),
    ("volumes only", {"a.nii.gz": b"x"}, "table:PATH", r"\.nii\.gz"),
    ("no header", {"a.txt": "syn1|where?|left\n"}, "text:PATH", r"\?columns="),
]


@pytest.mark.parametrize(("case", "files", "source", "message"), REFUSED, ids=[case for case, *_ in REFUSED])
def test_refused(case: str, files: dict[str, Any], source: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(ConfigError, match=message):
        list(records(source.replace("PATH", str(tmp_path)), ALL))


def test_a_linked_image_folder_is_named_as_that(tmp_path: Path) -> None:
    linked(tmp_path)
    with pytest.raises(ConfigError, match=r"link images.*|image_root"):
        open_source(f"jsonl:{tmp_path / 'set'}")
    found = list(records(f"jsonl:{tmp_path / 'set'}?image_root={tmp_path / 'elsewhere'}", ALL))
    assert isinstance(found[0], Record)
    assert found[0].images[0].read(10**6) == png()


ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("letter and text disagree", choice("B", answer="aorta"), "bad_field"),
    ("letter of no option", choice() | {"answer_idx": "G"}, "no_answer"),
    ("answer of no option", {"question": "Which?", "options": ["a", "b"], "answer": "c"}, "no_answer"),
    (
        "a single option",
        choice() | {"options": {"A": "aorta", "B": ""}, "answer_idx": "A", "answer": "aorta"},
        "no_answer",
    ),
    (
        "an empty right option",
        choice() | {"options": {"A": "x", "B": "y", "C": None}, "answer_idx": "C", "answer": ""},
        "no_answer",
    ),
    ("unknown part", QA | {"split": "fold 3"}, "unknown_split"),
    ("NaN for an answer", QA | {"answer": float("nan")}, "no_answer"),
    ("-Infinity for a question", QA | {"question": float("-inf")}, "bad_field"),
    ("no truth value is an image", QA | {"images": False}, "bad_field"),
    ("nor is 0", QA | {"images": 0}, "bad_field"),
    ("nor an empty object", QA | {"images": {}}, "bad_field"),
    ("an unknown modality", QA | {"modality": "Smell"}, "bad_modality"),
]


@pytest.mark.parametrize(("case", "row", "reason"), ROWS, ids=[case for case, *_ in ROWS])
def test_a_row_that_cannot_be_told_is_refused(case: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = [choice(q, id=q) if "options" in row else QA | {"images": ["a.png"]} for q in "ABC"]
    write(tmp_path, {"rows.jsonl": [*good, row], "a.png": png()})
    found = list(records(f"jsonl:{tmp_path}?text_only=true", ALL))
    assert [item.reason for item in found if not isinstance(item, Record)] == [reason]


BAD_LINES = [
    ("a lone quote", 'q50,"a"b\n', 1),
    ("an unclosed quote", 'q50,"a\n', 1),
    ("a field of 140 kB", f"q50,{'a' * 140_000}\n", 0),
    ("a quoted field over two lines", 'q50,"a\nb"\n', 0),
]


@pytest.mark.parametrize(("case", "line", "lost"), BAD_LINES, ids=[case for case, *_ in BAD_LINES])
def test_a_damaged_line_of_a_text_table_costs_itself_only(case: str, line: str, lost: int, tmp_path: Path) -> None:
    lines = [line if n == 50 else f"q{n},a{n}\n" for n in range(100)]
    write(tmp_path, {"rows.csv": "question,answer\n" + "".join(lines)})
    found = list(records(f"csv:{tmp_path}", ALL))
    assert len(found) == 100
    assert sum(not isinstance(item, Record) for item in found) == lost


def test_the_training_question_shows_passage_and_options() -> None:
    record = Record("1", "train", "Which?", "liver", choices=("aorta", "liver"), letter="B", passage="A scan.")
    assert rendered(record) == ("A scan.\n\nWhich?\nA. aorta\nB. liver", ("B", "B. liver"))


def named(*honest: str) -> st.SearchStrategy[str]:
    """Names that mean the role, and names that mean nothing; none that means another role."""
    return st.sampled_from([*honest, "frage", "antwort", "x1", "bild", "teil", "spalte"])


COLUMNS = st.tuples(
    named("question", "Problem", "query"),
    named("answer", "Answers", "caption"),
    named("image", "img_name", "filename"),
    named("split", "subset", "set", "partition"),
).filter(lambda names: len(set(names)) == 4)
WORDS = st.sampled_from(["train", "Testing", "validate", "fold1", "dev", "holdout", "xyz"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=COLUMNS,
    words=st.lists(WORDS, min_size=3, max_size=6),
    form=st.sampled_from(["rows.jsonl", "rows.csv", "rows.json", "rows.parquet"]),
)
def test_any_table_ends_in_the_right_rows_or_in_a_refusal_that_names_a_column(
    columns: tuple[str, str, str, str], words: list[str], form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Four columns of any names hold question, answer, image and part, in this order of `columns`."""
    root = tmp_path_factory.mktemp("any")
    question, answer, image, part = columns
    table = [
        {question: f"Where is it in {n}?", answer: f"on side {n}", image: f"i{n}.png", part: word}
        for n, word in enumerate(words)
    ]
    write(root, {form: table, **{f"i{n}.png": png(n) for n in range(len(words))}})
    message = ""
    known = {"train": "train", "Testing": "test", "validate": "val", "dev": "val", "holdout": "test"}
    try:
        found = list(records(f"table:{root}", ALL))
    except ConfigError as error:
        found, message = [], str(error)
    if not found:
        assert any(name in message for name in columns), message
        return
    kept = {item.question: item for item in found if isinstance(item, Record)}
    refused = [item for item in found if not isinstance(item, Record)]
    for n, word in enumerate(words):
        item = kept.get(f"Where is it in {n}?")
        if item is None:
            assert any(name in r.detail or repr(word) in r.detail for r in refused for name in columns), refused
            continue
        assert item.reference == f"on side {n}"
        assert [ref.read(10**6) for ref in item.images] == [png(n)]
        assert item.split == known[word], (word, item.split)


def test_images_that_are_missing_are_refused_by_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"rows.jsonl": [QA | {"image": name} for name in ("gone.png", "http://x/y.png", "v.nii.gz")], "v.nii.gz": b"x"},
    )
    found = [item for item in records(f"jsonl:{tmp_path}", ALL) if isinstance(item, Record)]
    for item, words in zip(found[:2], ("gone.png", "web address"), strict=True):
        with pytest.raises(Unfit, match=words):
            item.images[0].read(10**6)
