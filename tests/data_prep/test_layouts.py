"""Layouts that people really have, each in a small file of its own: what goes in, as what, and what is refused.

The first table stands in docs/data.md; `MEDIX_WRITE_DOCS=1` writes it there again.
"""

from __future__ import annotations

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
import yaml
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


def _content(value: Any) -> Any:
    """Return what stands in the YAML file with its pictures made."""
    if isinstance(value, str) and value.startswith(("PNG ", "BYTES ")):
        kind, _, rest = value.partition(" ")
        return png(int(rest)) if kind == "PNG" else rest.encode()
    if isinstance(value, dict):
        return {key: _content(inner) for key, inner in value.items()}
    return [_content(inner) for inner in value] if isinstance(value, list) else value


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


TRIED: dict[str, list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("layouts.yaml").read_text("utf-8"))
LAYOUTS = [Layout(**_content(one)) for one in TRIED["layouts"]]
QA = {"question": "Where?", "answer": "left"}
CHOICE = {"question": "Which?", "options": {"A": "aorta", "B": "liver", "C": "spleen", "D": "kidney"}}


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


@pytest.mark.parametrize("case", TRIED["refused"], ids=lambda case: str(case["what"]))
def test_refused(case: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, _content(case["files"]))
    with pytest.raises(ConfigError, match=case["message"]):
        list(records(case["source"].replace("PATH", str(tmp_path)), ALL))


def test_a_linked_image_folder_is_named_as_that(tmp_path: Path) -> None:
    linked(tmp_path)
    with pytest.raises(ConfigError, match=r"link images.*|image_root"):
        open_source(f"jsonl:{tmp_path / 'set'}")
    found = list(records(f"jsonl:{tmp_path / 'set'}?image_root={tmp_path / 'elsewhere'}", ALL))
    assert isinstance(found[0], Record)
    assert found[0].images[0].read(10**6) == png()


@pytest.mark.parametrize("case", TRIED["rows"], ids=lambda case: str(case["what"]))
def test_a_row_that_cannot_be_told_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    choices = [CHOICE | {"id": q, "answer_idx": q, "answer": CHOICE["options"][q]} for q in "ABC"]  # type: ignore[index]
    good = choices if "options" in case["row"] else [QA | {"images": ["a.png"]}] * 3
    good = [{**row, "split": "train"} for row in good] if "split" in case["row"] else good
    write(tmp_path, {"rows.jsonl": [*good, case["row"]], "a.png": png()})
    found = list(records(f"jsonl:{tmp_path}?text_only=true", ALL))
    assert [item.reason for item in found if not isinstance(item, Record)] == [case["reason"]]


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
        assert item.split == known.get(word, "train"), (word, item.split)


def test_images_that_are_missing_are_refused_by_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"rows.jsonl": [QA | {"image": name} for name in ("gone.png", "http://x/y.png", "v.nii.gz")], "v.nii.gz": b"x"},
    )
    found = [item for item in records(f"jsonl:{tmp_path}", ALL) if isinstance(item, Record)]
    for item, words in zip(found[:2], ("gone.png", "web address"), strict=True):
        with pytest.raises(Unfit, match=words):
            item.images[0].read(10**6)
