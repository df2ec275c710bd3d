"""Tasks as data: each on a small file of the real layout, groups and names, and task files of a user's own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.records import Refusal
from evaluation.item import Item
from evaluation.task import Task, describe_tasks, load_items, load_tasks, select_tasks
from medix.errors import ConfigError
from tests.evaluation.layouts import png, write, write_layout

TASKS = load_tasks()
TRUE_FALSE = "\nChoices:\nA. True\nB. False\nC. maybe"


def loaded(task: str, folder: Path, **more: Any) -> list[Item]:
    items = list(load_items(TASKS[task], write_layout(task, folder), **more))
    assert all(isinstance(item, Item) for item in items), items
    return items  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("names", "count", "first"),
    [
        (["paper"], 17, "mmlu_clinical_knowledge"),
        (["mmmu"], 5, "mmmu_basic_medical_science"),
        (["mmlu"], 6, "mmlu_clinical_knowledge"),  # every task of that data set
        (["paper", "-mimic_cxr"], 15, "mmlu_clinical_knowledge"),
        (["vqa_rad", "vqa_rad"], 1, "vqa_rad"),
        (["reports"], 3, "iu_xray"),
        (["multilingual"], 2, "careqa_es"),
        (["sample", "medqa"], 2, "sample"),
        (["all"], len(TASKS) - 1, "mmmu_basic_medical_science"),
    ],
)
def test_groups_and_names(names, count, first):
    chosen = select_tasks(names)
    assert (len(chosen), chosen[0].name) == (count, first)


@pytest.mark.parametrize(
    ("names", "message"), [(["medqaa"], "Did you mean 'medqa'"), (["mmlu", "-mmlu"], "No task is left")]
)
def test_unknown_tasks_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        select_tasks(names)


def test_the_list_names_every_task_with_its_source_and_licence():
    lines = describe_tasks().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(TASKS)
    medqa = next(line for line in lines if line.startswith("medqa "))
    assert medqa.split() == ["medqa", "1273", "as", "stated", "text", "llm", "paper", "GBaker/MedQA-USMLE-4-options",
                             "CC-BY-4.0"]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "ids", "kinds", "references", "letters", "images"),
    [
        ("mmlu_anatomy", None, ["choice"] * 3, ["y", "y", "w"], ["C", "C", "A"], 0),
        ("medmcqa", ["m1", "m2"], ["choice"] * 2, ["z", "w"], ["D", "A"], 0),
        ("medqa", None, ["choice"] * 2, ["x", "x"], ["B", "B"], 0),
        ("usmle_sa", ["step1-2", "step2-1", "step2-2", "step3-1", "step3-2"], ["choice"] * 5, list("xwxwx"),
         list("BABAB"), 0),
        ("pubmedqa", ["7", "8", "9"], ["choice"] * 3, ["yes", "no", "maybe"], ["A", "B", "C"], 0),
        ("vqa_rad", None, ["closed", "open", "open"], ["Yes", "lung", "liver"], [""] * 3, 1),
        ("slake", ["11", "13"], ["open", "closed"], ["Liver", "No"], ["", ""], 1),
        ("slake_zh", ["12"], ["open"], ["肝脏"], [""], 1),
        ("pmc_vqa", None, ["choice"], ["lung"], ["A"], 1),
        ("pmc_vqa_hard", None, ["open"], ["lung"], [""], 1),
        ("mmmu_pharmacy", ["v1", "v2"], ["choice", "open"], ["b", "7"], ["B", ""], 2),
        ("mmmu_pro_medical", ["test_Pharmacy_1"], ["choice"], ["o9"], ["J"], 1),
        ("mimic_cxr_report_summarization", ["s1"], ["report"], ["Normal."], [""], 0),
        ("mimic_cxr_report_generation", ["s1"], ["report"], ["Findings: Clear.\nImpression: Normal."], [""], 1),
        ("medxpertqa_text", ["Text-0"], ["choice"], ["option E"], ["E"], 0),
        ("medxpertqa_mm", ["MM-0"], ["choice"], ["option E"], ["E"], 2),
        ("omnimedvqa", ["ACRIMA_0000", "ACRIMA_0001"], ["choice"] * 2, ["Fundus imaging"] * 2, ["D", "C"], 1),
        ("gmai_mmbench", ["0", "1"], ["choice"] * 2, ["bone", "liver"], ["E", "A"], 1),
        ("medframeqa", ["q1", "q2"], ["choice"] * 2, ["o2"] * 2, ["B", "B"], 2),
        ("careqa_en", ["a1", "a2"], ["choice"] * 2, ["z", "w"], ["D", "A"], 0),
        ("careqa_es", ["a1", "a2"], ["choice"] * 2, ["z", "w"], ["D", "A"], 0),
        ("medbullets_4", None, ["choice"], ["y"], ["C"], 0),
        ("medbullets_5", None, ["choice"], ["y"], ["C"], 0),
        ("healthbench", ["p1", "p2"], ["points"] * 2, ["Rest.", "(graded by criteria)"], ["", ""], 0),
        ("healthbench_hard", ["p1", "p2"], ["points"] * 2, ["Rest.", "(graded by criteria)"], ["", ""], 0),
        ("vqa_med_2019", None, ["open"] * 2, ["cta - ct angiography", "axial"], ["", ""], 1),
        ("iu_xray", ["1"], ["report"], ["Clear, no effusion."], [""], 2),
    ],
)  # fmt: skip
def test_items_of_the_real_layout(tmp_path, task, ids, kinds, references, letters, images):
    items = loaded(task, tmp_path)
    assert [item.kind for item in items] == kinds
    assert [item.reference for item in items] == references
    assert [item.letter for item in items] == letters
    assert {len(item.images) for item in items} == {images}
    assert len({item.id for item in items}) == len(items)
    assert ids is None or [item.id for item in items] == ids
    assert [item.place for item in items] == sorted(item.place for item in items)


def test_more_of_single_sets(tmp_path):
    first, second, _ = loaded("mmlu_anatomy", tmp_path / "mmlu")
    assert second.id == f"{first.id}-2"  # a true duplicate of the source stays an item of its own
    assert first.whole_question == "Q?\n\nChoices:\nA. w\nB. x\nC. y\nD. z"
    yes, no, _ = loaded("pubmedqa", tmp_path / "pubmedqa")
    assert yes.whole_question == "BACKGROUND: Why.\nRESULTS: What.\n\nDoes it, 0?\n\nChoices:\nA. yes\nB. no\nC. maybe"
    assert yes.cluster == no.cluster  # the same abstract
    one, two, three = loaded("path_vqa", tmp_path / "path")
    assert one.cluster == two.cluster != three.cluster
    a, b = loaded("medframeqa", tmp_path / "frames")
    assert a.cluster == b.cluster == "v1"
    assert loaded("mmmu_pharmacy", tmp_path / "mmmu")[1].aliases == ("seven",)
    assert loaded("vqa_med_2019", tmp_path / "med")[1].aliases == ("transverse",)
    alone, turns = loaded("healthbench", tmp_path / "health")
    assert alone.question == "My head hurts."
    assert turns.question == "user: Hi\n\nassistant: Yes?\n\nuser: My head hurts."
    assert alone.points == (("Names the right answer.", 7.0), ("Frightens the user.", -5.0))


@pytest.mark.parametrize(
    ("task", "asked", "reference"),
    [
        ("pubmedqa", f"Contexts:\nWhy.\n\nQuestion:\nDoes it, 0?\n{TRUE_FALSE}", "yes. It does."),
        ("mimic_cxr_report_generation", "Generate a detailed report based on the scan.", None),
        ("mimic_cxr_report_summarization", "Write a short summary of the following report.\n\nReport:\nClear.:", None),
        ("vqa_rad", "Is it?", "Yes"),
    ],
)
def test_the_released_wording(tmp_path, task, asked, reference):
    item = loaded(task, tmp_path, released=True)[0]
    assert item.whole_question == asked
    assert reference is None or item.reference == reference
    assert all(image.startswith(b"\xff\xd8\xff") for image in item.images)  # JPEG


def test_rows_that_are_no_question_are_refused_with_their_reason(tmp_path):
    write_layout("medmcqa", tmp_path)
    row = {"id": "m3", "question": "Q?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": -1, "exp": None}
    write(tmp_path, {"data/validation-00001-of-00002.parquet": [row]})
    *_, last = load_items(TASKS["medmcqa"], tmp_path)
    assert isinstance(last, Refusal)
    assert last.reason == "no_answer"


def test_a_table_without_its_columns_is_refused_as_a_whole(tmp_path):
    write(tmp_path, {"anatomy/test-00000-of-00001.parquet": [{"question": "Q?"}]})
    with pytest.raises(ConfigError, match="no known question and answer columns"):
        list(load_items(TASKS["mmlu_anatomy"], tmp_path))
    with pytest.raises(ConfigError, match="no files at"):
        list(load_items(TASKS["mmlu_anatomy"], tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="has no path"):
        list(load_items(TASKS["mimic_cxr_report_generation"], None))


def test_the_sample_task_is_the_committed_set():
    items = list(load_items(TASKS["sample"]))
    assert len(items) > 50
    assert len({item.id for item in items if isinstance(item, Item)}) == len(items)


OWN = {"name": "ward_questions", "splits": "test", "judging": "verdict", "clusters": "patient", "summary": "Our own."}


def own_task(folder: Path, **changes: str) -> str:
    rows = "What is it?,lung,a.png,p1,test\nIs it?,yes,a.png,p1,test\nNo?,no,a.png,p2,train\n"
    fields = OWN | {"source": f"csv:{folder}/rows.csv?image=scan&question=ask&answer=truth"} | changes
    task = "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
    table = "ask,truth,scan,patient,split\n" + rows
    return str(write(folder, {"a.png": png(20), "rows.csv": table, "my_task.yaml": task}) / "my_task.yaml")


def test_a_task_file_of_ones_own(tmp_path):
    (task,) = select_tasks([own_task(tmp_path)])
    found = [(item.kind, item.reference, item.cluster) for item in load_items(task)]
    assert found == [("open", "lung", "p1"), ("closed", "yes", "p1")]
    assert (task.rubric, task.describe()["group"]) == ("verdict", "own")
    (task,) = select_tasks([own_task(tmp_path, kind="report")])
    assert {item.kind for item in load_items(task)} == {"report"}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("unknown field", {"sauce": "x"}, "There is no option my_task.yaml.sauce. Fix: Did you mean 'source'"),
        ("wrong kind", {"kind": "essay"}, "my_task.yaml.kind"),
        ("name that is a path", {"name": "../x"}, "my_task.yaml.name"),
    ],
)
def test_a_malformed_task_file_is_refused(tmp_path, name, changes, message):
    with pytest.raises(ConfigError) as caught:
        select_tasks([own_task(tmp_path, **changes)])
    assert message in str(caught.value), name


def test_a_picture_that_servers_show_otherwise_is_converted_before_it_is_sent(tmp_path):
    """Sent as they are, 16 bits of grey come out white, and what EXIF turns lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[1000, 1500, 2000]], dtype=np.uint16)).save(tmp_path / "grey.png")
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "fine.jpg")
    names = ("grey.png", "turned.jpg", "fine.jpg")
    rows = [{"question": "Where?", "answer": "left", "image": name} for name in names]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task(name="own", source=f"jsonl:{tmp_path}", summary="x")
    sent = {item.place: item.images[0] for item in load_items(task) if isinstance(item, Item)}
    grey, turned = (Image.open(io.BytesIO(sent[place])) for place in (0, 1))
    assert (grey.mode, np.asarray(grey)[0, :, 0].tolist()) == ("RGB", [0, 128, 255])
    assert turned.size == (20, 40)
    assert sent[2] == (tmp_path / "fine.jpg").read_bytes()
