"""A small folder of the real layout for each task, two or three rows each."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from evaluation.task import load_tasks

Write = Callable[[Path], None]


@cache
def png(shade: int, side: int = 8) -> bytes:
    buffer = BytesIO()
    Image.effect_noise((side, side), shade).save(buffer, "PNG")
    return buffer.getvalue()


def picture(shade: int) -> dict[str, Any]:
    return {"bytes": png(shade), "path": f"{shade}.png"}


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text(path, "".join(json.dumps(row) + "\n" for row in rows))


def mmlu(subject: str) -> Write:
    def write(folder: Path) -> None:
        row = {"question": "Q?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": subject}
        parquet(folder / subject / "test-00000-of-00001.parquet", [row, row, {**row, "question": "R?", "answer": 0}])

    return write


def medmcqa(folder: Path) -> None:
    row = {"id": "m1", "question": "Q?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "exp": None}
    parquet(
        folder / "data" / "validation-00000-of-00001.parquet", [row, {**row, "id": "m2", "question": "R?", "cop": 0}]
    )


def medqa(folder: Path) -> None:
    row = {"question": "Q?", "answer": "x", "options": {"A": "w", "B": "x"}, "answer_idx": "B", "meta_info": "step1"}
    lines(folder / "phrases_no_exclude_test.jsonl", [row, {**row, "question": "R?"}])


def usmle(folder: Path) -> None:
    options = {"A": "w", "B": "x"}
    questions = [{"no": 1, "question": "One?", "options": options}, {"no": 2, "question": "Two?", "options": options}]
    for step in ("step1", "step2", "step3"):
        text(folder / f"{step}.json", json.dumps(questions))
        text(folder / f"{step}_solutions.json", json.dumps({"1": "A", "2": "B"}))
    text(folder / "question_with_images.json", json.dumps({"step1": [0], "step2": [], "step3": []}))


def pubmedqa(folder: Path) -> None:
    context = {"contexts": ["Why.", "What."], "labels": ["BACKGROUND", "RESULTS"], "meshes": []}
    rows = [
        {
            "pubid": 7 + n,
            "question": f"Does it, {n}?",
            "context": context,
            "long_answer": "It does.",
            "final_decision": a,
        }
        for n, a in enumerate(("yes", "no", "maybe"))
    ]
    parquet(folder / "pqa_labeled" / "train-00000-of-00001.parquet", rows)


def image_questions(folder: Path) -> None:
    rows = [
        {"image": picture(1), "question": "Is it?", "answer": "Yes"},
        {"image": picture(1), "question": "What?", "answer": "lung"},
        {"image": picture(2), "question": "What?", "answer": "liver"},
    ]
    parquet(folder / "data" / "test-00000-of-00001-abc.parquet", rows)


def slake(folder: Path) -> None:
    row = {"qid": 11, "img_name": "x1/source.jpg", "question": "Organ?", "answer": "Liver", "q_lang": "en"}
    row |= {"answer_type": "OPEN", "modality": "CT", "location": "Abdomen", "img_id": 1}
    chinese = {**row, "qid": 12, "q_lang": "zh", "question": "这是什么器官?", "answer": "肝脏"}
    closed = {**row, "qid": 13, "question": "Is it?", "answer_type": "CLOSED", "answer": "No"}
    text(folder / "test.json", json.dumps([row, chinese, closed]))
    with zipfile.ZipFile(folder / "imgs.zip", "w") as archive:
        archive.writestr("imgs/x1/source.jpg", png(3))


def pmc_vqa(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "PMC1_F1.jpg").write_bytes(png(4))
    text(
        folder / "test_clean.csv",
        "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n"
        'PMC1_F1.jpg,"What, then?",lung, A:lung,B: liver,C:heart,D:bone,A\n',
    )


def mmmu(subject: str, folder_name: str = "", split: str = "validation") -> Write:
    def write(folder: Path) -> None:
        row = {"id": "v1", "question": "See <image 1> and <image 2>", "options": "['a', 'b']", "answer": "B"}
        row |= {"question_type": "multiple-choice", "image_1": picture(5), "image_2": picture(6)}
        opened = {**row, "id": "v2", "options": "[]", "answer": "['7', 'seven']", "question_type": "open"}
        parquet(folder / subject / f"{split}-00000-of-00001.parquet", [row, opened])

    return write


def mmmu_pro(folder: Path) -> None:
    row = {"id": "test_Pharmacy_1", "question": "See <image 1>?", "options": str([f"o{n}" for n in range(10)])}
    row |= {"answer": "J", "image_1": picture(5), "image_2": None, "subject": "Pharmacy", "topic_difficulty": "Hard"}
    other = {**row, "id": "test_Art_1", "subject": "Art"}
    parquet(folder / "standard (10 options)" / "test-00000-of-00002.parquet", [row, other])


def mimic(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p.png").write_bytes(png(7))
    row = {"id": "s1", "subject_id": "p10", "findings": "Clear.", "impression": "Normal.", "image": "p.png"}
    lines(folder / "test.jsonl", [row])


def medxpertqa(part: str) -> Write:
    def write(folder: Path) -> None:
        options = {letter: f"option {letter}" for letter in "ABCDE"}
        row = {"id": f"{part}-0", "question": "Which? \nAnswer Choices: (A) option A", "options": options, "label": "E"}
        row |= {"medical_task": "Diagnosis", "body_system": "Other", "question_type": "Reasoning"}
        if part == "MM":
            row["images"] = ["MM-0-a.jpeg", "MM-0-b.jpeg"]
            with zipfile.ZipFile(_made(folder) / "images.zip", "w") as archive:
                for number, name in enumerate(row["images"]):
                    archive.writestr(f"images/{name}", png(10 + number))
        lines(folder / part / "test.jsonl", [row])
        lines(folder / part / "dev.jsonl", [{**row, "id": f"{part}-dev"}])

    return write


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def omnimedvqa(folder: Path) -> None:
    row = {"dataset": "ACRIMA", "question_id": "ACRIMA_0000", "question_type": "Modality Recognition"}
    row |= {"question": "What imaging technique was used?", "gt_answer": "Fundus imaging", "modality_type": "Fundus"}
    row |= {"image_path": "Images/ACRIMA/Im553.png", "option_A": "PET scan", "option_B": "CT scan"}
    row |= {"option_C": "Blood test", "option_D": "Fundus imaging"}
    two = {**row, "question_id": "ACRIMA_0001", "option_C": "Fundus imaging"}
    del two["option_D"]
    text(folder / "QA_information" / "Open-access" / "ACRIMA.json", json.dumps([row, two]))
    text(folder / "QA_information" / "Restricted-access" / "AIDA.json", json.dumps([row]))
    _made(folder / "Images" / "ACRIMA").joinpath("Im553.png").write_bytes(png(8))


def gmai(folder: Path) -> None:
    head = "index\timage\tquestion\tA\tB\tC\tD\tE\tanswer\tcategory\tclinical vqa task\tdepartment\tmodality\n"
    image = base64.b64encode(png(9, 64)).decode()
    row = f"{{}}\t{image}\tWhat is this?\tliver\tspleen\tlung\theart\t{{}}\t{{}}\tOR-A\tOrgan Recognition\tGM\tCT\n"
    text(folder / "GMAI_mm_bench_VAL.tsv", head + row.format(0, "bone", "E") + row.format(1, "", "A"))


def medframeqa(folder: Path) -> None:
    row = {"question_id": "q1", "system": "CNS", "organ": "brain", "keyword": "k", "modality": "MRI", "video_id": "v1"}
    row |= {"question": "Which?", "options": ["o1", "o2", "o3"], "correct_answer": "B", "reasoning_chain": "so"}
    row |= {"image_1": picture(11), "image_2": picture(12), "image_3": None, "image_url": ["u"]}
    parquet(folder / "data" / "test-00000-of-00001.parquet", [row, {**row, "question_id": "q2", "question": "What?"}])


def careqa(folder: Path) -> None:
    row = {"exam_id": 2, "question": "Which?", "op1": "w", "op2": "x", "op3": "y", "op4": "z", "cop": 4, "year": 2024}
    row |= {"category": "Medicine", "unique_id": "a1"}
    rows = [row, {**row, "unique_id": "a2", "question": "What?", "cop": 1}]
    text(folder / "CareQA_en.json", json.dumps(rows))
    text(folder / "CareQA_es.json", json.dumps([{**one, "question": "¿" + one["question"]} for one in rows]))


def medbullets(folder: Path) -> None:
    options = dict(zip("ABCD", "wxyz", strict=True))
    row = {"idx": "1", "question": "Which?", "answer": "C", "explanation": "since", "link": "l"}
    parquet(folder / "data" / "op4_test-00000-of-00001.parquet", [row | {"options": options | {"E": None}}])
    parquet(folder / "data" / "op5_test-00000-of-00001.parquet", [row | {"options": options | {"E": "v"}}])


def healthbench(folder: Path) -> None:
    rubrics = [
        {"criterion": "Names the right answer.", "points": 7, "tags": ["level:example"]},
        {"criterion": "Frightens the user.", "points": -5, "tags": ["level:example"]},
    ]
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    row = {"prompt_id": "p1", "prompt": [{"role": "user", "content": "My head hurts."}], "rubrics": rubrics}
    row |= {"example_tags": ["theme:x"], "ideal_completions_data": {"ideal_completion": "Rest."}, "canary": "c"}
    second = {**row, "prompt_id": "p2", "prompt": [*turns, *row["prompt"]], "ideal_completions_data": None}
    for name in ("2025-05-07-06-14-12_oss_eval", "consensus_2025-05-09-20-00-46", "hard_2025-05-08-21-00-10"):
        lines(folder / f"{name}.jsonl", [row, second])


def vqa_med_2019(folder: Path) -> None:
    rows = "synpic1|modality|what is shown?|cta - ct angiography\nsynpic1|plane|which plane?|axial#transverse\n"
    text(folder / "VQAMed2019_Test_Questions_w_Ref_Answers.txt", rows)
    text(folder / "README-VQA-Med-2019-TestSet.txt", "--------\nVQA-Med-2019: Test Set\n")
    _made(folder / "VQAMed2019_Test_Images").joinpath("synpic1.jpg").write_bytes(png(13))


def iu_xray(folder: Path) -> None:
    head = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
    text(folder / "indiana_reports.csv", head + '1,normal,normal,Xray,cough,None.,"Clear, no effusion.",Normal.\n')
    views = "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n"
    text(folder / "indiana_projections.csv", views)
    for number, name in enumerate(("1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png")):
        _made(folder / "images" / "images_normalized").joinpath(name).write_bytes(png(14 + number))


BY_SET: dict[str, Write] = {
    "medmcqa": medmcqa, "medqa": medqa, "usmle": usmle, "pubmedqa": pubmedqa, "mimic_cxr": mimic, "slake": slake,
    "vqa_rad": image_questions, "path_vqa": image_questions, "pmc_vqa": pmc_vqa, "mmmu_pro": mmmu_pro,
    "omnimedvqa": omnimedvqa, "gmai_mmbench": gmai, "medframeqa": medframeqa, "careqa": careqa,
    "medbullets": medbullets, "healthbench": healthbench, "vqa_med_2019": vqa_med_2019, "iu_xray": iu_xray,
}  # fmt: skip


def write_layout(task: str, folder: Path) -> Path | None:
    """Write the files of a task; the sample set is there already."""
    known = load_tasks()[task]
    config = known.source.partition("config=")[2]
    if known.set_name == "sample":
        return None
    makers = {"mmlu": mmlu(config), "mmmu": mmmu(config), "medxpertqa": medxpertqa(task.rpartition("_")[2].upper())}
    if task == "medxpertqa_text":
        makers["medxpertqa"] = medxpertqa("Text")
    (makers | BY_SET)[known.set_name](_made(folder))
    return folder
