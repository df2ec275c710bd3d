"""Each task's loader on a small file of the real schema."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.records import Refusal
from evaluation.item import Item
from evaluation.prompting import question_text
from evaluation.task import load_items, load_tasks, select_tasks
from medix.errors import ConfigError

TASKS = load_tasks()


def png(shade: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def loaded(task: str, folder: Path) -> list[Item | Refusal]:
    return list(load_items(TASKS[task], folder))


def test_the_papers_seventeen_are_there_and_mmmu_beside_them():
    assert len(select_tasks(["paper"])) == 17
    assert len(select_tasks(["paper", "mmmu"])) == 22
    assert len(select_tasks(["mmlu"])) == 6  # every task of that data set
    assert [task.name for task in select_tasks(["sample", "sample"])] == ["sample"]


def test_an_unknown_task_is_refused_with_the_right_name():
    with pytest.raises(ConfigError, match="Did you mean 'medqa'"):
        select_tasks(["medqaa"])


def test_mmlu(tmp_path):
    row = {"question": "Q?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "anatomy"}
    parquet(tmp_path / "anatomy" / "test-00000-of-00001.parquet", [row, row, {**row, "answer": 7}])
    first, second, third = loaded("mmlu_anatomy", tmp_path)
    assert (first.letter, first.reference, first.choices) == ("C", "y", ("w", "x", "y", "z"))
    assert second.id == f"{first.id}-2"  # a true duplicate of the source stays an item of its own
    assert isinstance(third, Refusal)
    assert third.reason == "no_answer"
    assert question_text(first) == "Q?\n\nChoices:\nA. w\nB. x\nC. y\nD. z"


def test_medmcqa(tmp_path):
    row = {"id": "m1", "question": "Q?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "exp": None}
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [row, {**row, "id": "m2", "cop": -1}])
    first, second = loaded("medmcqa", tmp_path)
    assert (first.id, first.letter, first.reference) == ("m1", "D", "z")
    assert isinstance(second, Refusal)


def test_medqa(tmp_path):
    row = {"question": "Q?", "answer": "x", "options": {"A": "w", "B": "x"}, "answer_idx": "B", "meta_info": "step1"}
    (tmp_path / "phrases_no_exclude_test.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = loaded("medqa", tmp_path)
    assert (item.letter, item.reference) == ("B", "x")


def test_usmle_leaves_out_questions_with_pictures(tmp_path):
    options = {"A": "w", "B": "x"}
    questions = [{"no": 1, "question": "One?", "options": options}, {"no": 2, "question": "Two?", "options": options}]
    for step in ("step1", "step2", "step3"):
        (tmp_path / f"{step}.json").write_text(json.dumps(questions))
        (tmp_path / f"{step}_solutions.json").write_text(json.dumps({"1": "A", "2": "B"}))
    (tmp_path / "question_with_images.json").write_text(json.dumps({"step1": [0], "step2": [], "step3": []}))
    items = loaded("usmle_sa", tmp_path)
    assert [item.id for item in items] == ["step1-2", "step2-1", "step2-2", "step3-1", "step3-2"]
    assert [item.letter for item in items] == ["B", "A", "B", "A", "B"]


def test_pubmedqa_asks_yes_no_maybe_and_shows_the_whole_abstract(tmp_path):
    rows = [
        {
            "pubid": 7 + n,
            "question": "Does it?",
            "context": {"contexts": ["Why.", "What."], "labels": ["BACKGROUND", "RESULTS"], "meshes": []},
            "long_answer": "...",
            "final_decision": decision,
        }
        for n, decision in enumerate(("yes", "no", "maybe", "True"))
    ]
    parquet(tmp_path / "pqa_labeled" / "train-00000-of-00001.parquet", rows)
    yes, no, maybe, wrong = loaded("pubmedqa", tmp_path)
    assert [(item.reference, item.letter) for item in (yes, no, maybe)] == [("yes", "A"), ("no", "B"), ("maybe", "C")]
    text = question_text(yes)
    assert text == "BACKGROUND: Why.\nRESULTS: What.\n\nDoes it?\n\nChoices:\nA. yes\nB. no\nC. maybe"
    assert "True" not in text
    assert isinstance(wrong, Refusal)
    assert yes.cluster == no.cluster  # the same abstract


@pytest.mark.parametrize("task", ["vqa_rad", "path_vqa"])
def test_image_questions(tmp_path, task):
    rows = [
        {"image": {"bytes": png(1), "path": "a.png"}, "question": "Is it?", "answer": "Yes"},
        {"image": {"bytes": png(1), "path": "a.png"}, "question": "What?", "answer": "lung"},
        {"image": {"bytes": png(2), "path": "b.png"}, "question": "What?", "answer": "liver"},
    ]
    parquet(tmp_path / "data" / "test-00000-of-00001-abc.parquet", rows)
    items = loaded(task, tmp_path)
    assert [item.kind for item in items] == ["closed", "open", "open"]
    assert items[0].cluster == items[1].cluster != items[2].cluster


def test_slake_reads_english_rows_from_the_archive(tmp_path):
    row = {"qid": 11, "img_name": "x1/source.jpg", "question": "Organ?", "answer": "Liver", "q_lang": "en"}
    row |= {"answer_type": "OPEN", "modality": "CT", "location": "Abdomen"}
    rows = [row, {**row, "qid": 12, "q_lang": "zh"}, {**row, "qid": 13, "answer_type": "CLOSED", "answer": "No"}]
    rows.append({**row, "qid": 14, "img_name": "../../etc/passwd"})
    (tmp_path / "test.json").write_text(json.dumps(rows))
    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as archive:
        archive.writestr("imgs/x1/source.jpg", png(3))
    first, second, third = loaded("slake", tmp_path)
    assert (first.id, first.kind, first.modality) == ("11", "open", "CT_SCAN")
    assert (second.id, second.kind) == ("13", "closed")
    assert isinstance(third, Refusal)


@pytest.mark.parametrize(("task", "kind", "choices"), [("pmc_vqa", "choice", 4), ("pmc_vqa_hard", "open", 0)])
def test_pmc_vqa(tmp_path, task, kind, choices):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "PMC1_F1.jpg").write_bytes(png(4))
    (tmp_path / "test_clean.csv").write_text(
        "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n"
        'PMC1_F1.jpg,"What, then?",lung, A:lung,B: liver,C:heart,D:bone,A\n'
        "missing.jpg,What?,lung,A:lung,B:liver,C:heart,D:bone,A\n"
    )
    item, refused = loaded(task, tmp_path)
    assert (item.kind, item.reference, len(item.choices)) == (kind, "lung", choices)
    assert refused.reason == "missing_image"


def test_mmmu(tmp_path):
    row = {"id": "v1", "question": "See <image 1> and <image 2>", "options": "['a', 'b']", "answer": "B"}
    row |= {"question_type": "multiple-choice", "image_1": {"bytes": png(5)}, "image_2": {"bytes": png(6)}}
    opened = {**row, "id": "v2", "options": "[]", "answer": "['7', 'seven']", "question_type": "open"}
    parquet(tmp_path / "Pharmacy" / "validation-00000-of-00001.parquet", [row, opened])
    choice, free = loaded("mmmu_pharmacy", tmp_path)
    assert (choice.letter, choice.reference, len(choice.images)) == ("B", "b", 2)
    assert (free.kind, free.reference, free.aliases) == ("open", "7", ("seven",))


def test_mimic_comes_from_a_local_copy_only(tmp_path):
    with pytest.raises(ConfigError, match="has no path"):
        list(load_items(TASKS["mimic_cxr_report_generation"], None))
    (tmp_path / "p.png").write_bytes(png(7))
    row = {"id": "s1", "subject_id": "p10", "findings": "Clear.", "impression": "Normal.", "image": "p.png"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    (summary,) = loaded("mimic_cxr_report_summarization", tmp_path)
    (report,) = loaded("mimic_cxr_report_generation", tmp_path)
    assert (summary.passage, summary.reference, summary.images) == ("Clear.", "Normal.", ())
    assert report.reference == "Findings: Clear.\nImpression: Normal."
    assert len(report.images) == 1
    assert summary.cluster == report.cluster == "p10"


def test_a_table_without_its_columns_is_refused_as_a_whole(tmp_path):
    parquet(tmp_path / "anatomy" / "test-00000-of-00001.parquet", [{"question": "Q?"}])
    with pytest.raises(ConfigError, match="no known question and answer columns"):
        loaded("mmlu_anatomy", tmp_path)
    with pytest.raises(ConfigError, match="no files at"):
        loaded("mmlu_anatomy", tmp_path / "anatomy" / "nothing")


def test_the_sample_task_is_the_committed_set():
    items = loaded("sample", None)  # type: ignore[arg-type]
    assert len(items) > 50
    assert len({item.id for item in items}) == len(items)
