"""A small folder of the real layout for each task, two or three rows each."""

from __future__ import annotations

import base64
import json
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from evaluation.task import load_tasks

Files = dict[str, Any]
"""Path -> rows of a table, text, bytes of a picture, or an archive's pictures by name."""


@cache
def png(shade: int, side: int = 8) -> bytes:
    buffer = BytesIO()
    Image.effect_noise((side, side), shade).save(buffer, "PNG")
    return buffer.getvalue()


def picture(shade: int) -> dict[str, Any]:
    return {"bytes": png(shade), "path": f"{shade}.png"}


def write(folder: Path, files: Files) -> Path:
    """Write the files, each in the form that its name says."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        elif path.suffix == ".json":
            path.write_text(json.dumps(content))
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for member, data in content.items():
                    archive.writestr(member, data)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def mmlu(subject: str) -> Files:
    row = {"question": "Q?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": subject}
    return {f"{subject}/test-00000-of-00001.parquet": [row, row, {**row, "question": "R?", "answer": 0}]}


def medmcqa() -> Files:
    row = {"id": "m1", "question": "Q?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "exp": None}
    rows = [row, {**row, "id": "m2", "question": "R?", "cop": 0}]
    return {"data/validation-00000-of-00001.parquet": rows}


def medqa() -> Files:
    row = {"question": "Q?", "answer": "x", "options": {"A": "w", "B": "x"}, "answer_idx": "B", "meta_info": "step1"}
    return {"phrases_no_exclude_test.jsonl": [row, {**row, "question": "R?"}]}


def usmle() -> Files:
    options = {"A": "w", "B": "x"}
    questions = [{"no": 1, "question": "One?", "options": options}, {"no": 2, "question": "Two?", "options": options}]
    files: Files = {"question_with_images.json": {"step1": [0], "step2": [], "step3": []}}
    for step in ("step1", "step2", "step3"):
        files |= {f"{step}.json": questions, f"{step}_solutions.json": {"1": "A", "2": "B"}}
    return files


def pubmedqa() -> Files:
    context = {"contexts": ["Why.", "What."], "labels": ["BACKGROUND", "RESULTS"], "meshes": []}
    row = {"context": context, "long_answer": "It does."}
    rows = [
        {"pubid": 7 + n, "question": f"Does it, {n}?", "final_decision": answer, **row}
        for n, answer in enumerate(("yes", "no", "maybe"))
    ]
    return {"pqa_labeled/train-00000-of-00001.parquet": rows}


def image_questions() -> Files:
    rows = [(1, "Is it?", "Yes"), (1, "What?", "lung"), (2, "What?", "liver")]
    names = ("image", "question", "answer")
    table = [dict(zip(names, (picture(shade), *texts), strict=True)) for shade, *texts in rows]
    return {"data/test-00000-of-00001-abc.parquet": table}


def slake() -> Files:
    row = {"qid": 11, "img_name": "x1/source.jpg", "question": "Organ?", "answer": "Liver", "q_lang": "en"}
    row |= {"answer_type": "OPEN", "modality": "CT", "location": "Abdomen", "img_id": 1}
    chinese = {**row, "qid": 12, "q_lang": "zh", "question": "这是什么器官?", "answer": "肝脏"}
    closed = {**row, "qid": 13, "question": "Is it?", "answer_type": "CLOSED", "answer": "No"}
    return {"test.json": [row, chinese, closed], "imgs.zip": {"imgs/x1/source.jpg": png(3)}}


def pmc_vqa() -> Files:
    head = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n"
    row = 'PMC1_F1.jpg,"What, then?",lung, A:lung,B: liver,C:heart,D:bone,A\n'
    return {"images/PMC1_F1.jpg": png(4), "test_clean.csv": head + row}


def mmmu(subject: str) -> Files:
    row = {"id": "v1", "question": "See <image 1> and <image 2>", "options": "['a', 'b']", "answer": "B"}
    row |= {"question_type": "multiple-choice", "image_1": picture(5), "image_2": picture(6)}
    opened = {**row, "id": "v2", "options": "[]", "answer": "['7', 'seven']", "question_type": "open"}
    return {f"{subject}/validation-00000-of-00001.parquet": [row, opened]}


def mmmu_pro() -> Files:
    row = {"id": "test_Pharmacy_1", "question": "See <image 1>?", "options": str([f"o{n}" for n in range(10)])}
    row |= {"answer": "J", "image_1": picture(5), "image_2": None, "subject": "Pharmacy", "topic_difficulty": "Hard"}
    other = {**row, "id": "test_Art_1", "subject": "Art"}
    return {"standard (10 options)/test-00000-of-00002.parquet": [row, other]}


def mimic() -> Files:
    row = {"id": "s1", "subject_id": "p10", "findings": "Clear.", "impression": "Normal.", "image": "p.png"}
    return {"p.png": png(7), "test.jsonl": [row]}


def medxpertqa(part: str) -> Files:
    options = {letter: f"option {letter}" for letter in "ABCDE"}
    row = {"id": f"{part}-0", "question": "Which? \nAnswer Choices: (A) option A", "options": options, "label": "E"}
    row |= {"medical_task": "Diagnosis", "body_system": "Other", "question_type": "Reasoning"}
    row |= {"images": ["MM-0-a.jpeg", "MM-0-b.jpeg"]} if part == "MM" else {}
    files: Files = {f"{part}/test.jsonl": [row], f"{part}/dev.jsonl": [{**row, "id": f"{part}-dev"}]}
    images = {f"images/{name}": png(10 + number) for number, name in enumerate(row.get("images", []))}
    return files | ({"images.zip": images} if images else {})


def omnimedvqa() -> Files:
    row = {"dataset": "ACRIMA", "question_id": "ACRIMA_0000", "question_type": "Modality Recognition"}
    row |= {"question": "What imaging technique was used?", "gt_answer": "Fundus imaging", "modality_type": "Fundus"}
    row |= {"image_path": "Images/ACRIMA/Im553.png", "option_A": "PET scan", "option_B": "CT scan"}
    two = {**row, "question_id": "ACRIMA_0001", "option_C": "Fundus imaging"}
    row |= {"option_C": "Blood test", "option_D": "Fundus imaging"}
    tables = {"Open-access/ACRIMA": [row, two], "Restricted-access/AIDA": [row]}
    return {"Images/ACRIMA/Im553.png": png(8)} | {f"QA_information/{n}.json": rows for n, rows in tables.items()}


def gmai() -> Files:
    head = "index\timage\tquestion\tA\tB\tC\tD\tE\tanswer\tcategory\tclinical vqa task\tdepartment\tmodality\n"
    image = base64.b64encode(png(9, 64)).decode()
    row = f"{{}}\t{image}\tWhat is this?\tliver\tspleen\tlung\theart\t{{}}\t{{}}\tOR-A\tOrgan Recognition\tGM\tCT\n"
    return {"GMAI_mm_bench_VAL.tsv": head + row.format(0, "bone", "E") + row.format(1, "", "A")}


def medframeqa() -> Files:
    row = {"question_id": "q1", "system": "CNS", "organ": "brain", "keyword": "k", "modality": "MRI", "video_id": "v1"}
    row |= {"question": "Which?", "options": ["o1", "o2", "o3"], "correct_answer": "B", "reasoning_chain": "so"}
    row |= {"image_1": picture(11), "image_2": picture(12), "image_3": None, "image_url": ["u"]}
    return {"data/test-00000-of-00001.parquet": [row, {**row, "question_id": "q2", "question": "What?"}]}


def careqa() -> Files:
    row = {"exam_id": 2, "question": "Which?", "op1": "w", "op2": "x", "op3": "y", "op4": "z", "cop": 4, "year": 2024}
    row |= {"category": "Medicine", "unique_id": "a1"}
    rows = [row, {**row, "unique_id": "a2", "question": "What?", "cop": 1}]
    spanish = [{**one, "question": f"¿{one['question']}"} for one in rows]
    return {"CareQA_en.json": rows, "CareQA_es.json": spanish}


def medbullets() -> Files:
    options = dict(zip("ABCD", "wxyz", strict=True))
    row = {"idx": "1", "question": "Which?", "answer": "C", "explanation": "since", "link": "l"}
    fifth = {"op4": None, "op5": "v"}
    return {f"data/{n}_test-00000-of-00001.parquet": [row | {"options": options | {"E": e}}] for n, e in fifth.items()}


def healthbench() -> Files:
    rubrics = [
        {"criterion": "Names the right answer.", "points": 7, "tags": ["level:example"]},
        {"criterion": "Frightens the user.", "points": -5, "tags": ["level:example"]},
    ]
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    row = {"prompt_id": "p1", "prompt": [{"role": "user", "content": "My head hurts."}], "rubrics": rubrics}
    row |= {"example_tags": ["theme:x"], "ideal_completions_data": {"ideal_completion": "Rest."}, "canary": "c"}
    second = {**row, "prompt_id": "p2", "prompt": [*turns, *row["prompt"]], "ideal_completions_data": None}
    names = ("2025-05-07-06-14-12_oss_eval", "consensus_2025-05-09-20-00-46", "hard_2025-05-08-21-00-10")
    return {f"{name}.jsonl": [row, second] for name in names}


def vqa_med_2019() -> Files:
    rows = "synpic1|modality|what is shown?|cta - ct angiography\nsynpic1|plane|which plane?|axial#transverse\n"
    readme = "--------\nVQA-Med-2019: Test Set\n"
    files = {"VQAMed2019_Test_Questions_w_Ref_Answers.txt": rows, "README-VQA-Med-2019-TestSet.txt": readme}
    return {**files, "VQAMed2019_Test_Images/synpic1.jpg": png(13)}


def iu_xray() -> Files:
    head = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
    report = '1,normal,normal,Xray,cough,None.,"Clear, no effusion.",Normal.\n'
    views = "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n"
    tables = {"indiana_reports.csv": head + report, "indiana_projections.csv": views}
    return tables | {f"images/images_normalized/1_IM-0001-{n}.dcm.png": png(n // 100) for n in (4001, 3001)}


BY_SET = {
    "medmcqa": medmcqa, "medqa": medqa, "usmle": usmle, "pubmedqa": pubmedqa, "mimic_cxr": mimic, "slake": slake,
    "vqa_rad": image_questions, "path_vqa": image_questions, "pmc_vqa": pmc_vqa, "mmmu_pro": mmmu_pro,
    "omnimedvqa": omnimedvqa, "gmai_mmbench": gmai, "medframeqa": medframeqa, "careqa": careqa,
    "medbullets": medbullets, "healthbench": healthbench, "vqa_med_2019": vqa_med_2019, "iu_xray": iu_xray,
}  # fmt: skip
BY_PART = {"mmlu": mmlu, "mmmu": mmmu, "medxpertqa": medxpertqa}


def write_layout(task: str, folder: Path) -> Path | None:
    """Write the files of a task; the sample set is there already."""
    known = load_tasks()[task]
    name, config = known.set_name, known.source.partition("config=")[2]
    if name == "sample":
        return None
    part = config or ("MM" if task.endswith("_mm") else "Text")
    return write(folder, BY_PART[name](part) if name in BY_PART else BY_SET[name]())
