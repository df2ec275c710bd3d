"""Every data set that is known by name: what it is, where it is, and what its own columns mean."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from data_prep.records import Unfit
from data_prep.sources.folders import ask_header
from data_prep.sources.splits import TEST, TRAIN, VAL
from medix.files import shipped
from medix.prompts import IMAGE_SLOT

Row = Mapping[str, Any]
Adapt = Callable[[Row, Path, int, Mapping[str, str]], Row | None]
"""(row, its table, its number from 0, options) -> the row with columns that can be read, or None to leave it out."""

SAMPLE_DATA: Final = shipped("examples/sample_data")
"""Folder of the sample set: `train.jsonl`, `test.jsonl`, `images/`, `ATTRIBUTION.md`."""
SAMPLE_NAME: Final = "medix_sample"
_HUB: Final = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before its files are seen."""

    licence: str = "unknown"
    repository: str = ""
    """On the Hugging Face Hub; empty for local files."""
    revision: str = ""
    homepage: str = ""
    fetch: tuple[str, ...] = ()
    """Files of the repository that are needed."""
    tables: tuple[str, ...] = ()
    """Patterns of the tables below its folder, several with commas; the first that match are taken. Empty: all."""
    suffixes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role -> columns, where the common names would not find them."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Words for its parts that mean something else here."""
    prepared: Mapping[str, str] = field(default_factory=lambda: {TRAIN: TRAIN, VAL: VAL, TEST: VAL})
    """Split -> `train` or `val` of the prepared set; others are left out unless `?splits=` names them."""
    evaluation: tuple[str, ...] = (TRAIN, VAL, TEST)
    """Splits that `--against` compares with, and that an evaluation asks unless it names others."""
    image_folders: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Options that hold unless the specification says otherwise."""
    options: tuple[str, ...] = ()
    """Options of its own."""
    first_option: int | None = None
    adapt: Adapt | None = None
    root: Path | None = None
    """Where it is, if it comes with the project."""

    @property
    def home(self) -> str:
        return self.homepage or (_HUB + self.repository if self.repository else "")


def _hub(repository: str, licence: str, **more: Any) -> DataSet:
    """A benchmark: its test part is never trained on unless `?splits=` says so."""
    return DataSet(licence, repository, **({"prepared": {TRAIN: TRAIN, VAL: VAL}, "evaluation": (VAL, TEST)} | more))


MMLU_SUBJECTS: Final = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip
MMMU_SUBJECTS: Final = (
    "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health",
)  # fmt: skip


def _of_subjects(subjects: tuple[str, ...]) -> Adapt:
    return functools.partial(_only_subjects, subjects)


def _only_subjects(
    subjects: tuple[str, ...], row: Row, table: Path, number: int, options: Mapping[str, str]
) -> Row | None:
    """Leave out rows of other subjects, where a table holds several."""
    wanted = options["config"].split(",") if options.get("config") else subjects
    stated = row.get("subject")
    return row if stated is None or str(stated).replace(" ", "_") in wanted else None


def _medix_rl(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    origin = row.get("source")
    named = {"source": f"{options.get('name', 'medix_rl')}/{origin}" if origin else None}
    # Slots in the text are the set's own placeholders; ours are written anew, one an image.
    return {**row, **named, "problem": str(row.get("problem") or "").replace(IMAGE_SLOT, "")}


def _pubmedqa(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    decision = row.get("final_decision")
    return {**row, "options": ["yes", "no", "maybe"], "final_decision": str(decision).lower() if decision else None}


def _mimic(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    """Ask for the impression of given findings, or for the whole report of a picture."""
    findings, impression = (str(row.get(name) or "").strip() for name in ("findings", "impression"))
    if not findings or not impression:
        raise Unfit("no_answer", "'findings' or 'impression' is missing or empty")
    kept = {name: row[name] for name in ("id", "subject_id", "study_id", "split") if row.get(name) is not None}
    if options["ask"] == "summarise":
        question = "Write a short summary of this radiology report: its impression in a few sentences."
        return kept | {"question": question, "answer": impression, "passage": findings, "answer_kind": "report"}
    question = "Write a detailed radiology report of this image: findings, then impression."
    answer = f"Findings: {findings}\nImpression: {impression}"
    asked = {"question": question, "answer": answer, "answer_kind": "report", "modality": "X_RAY"}
    return kept | asked | {"image": row.get("image") or row.get("images")}


def _usmle(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    """`stepN.json` with its solutions in `stepN_solutions.json`; questions that need a picture are left out."""
    pictured, solutions = (
        _side_file(table.parent / "question_with_images.json"),
        _side_file(table.parent / f"{table.stem}_solutions.json"),
    )
    if number in pictured.get(table.stem, ()):
        return None
    name = str(row["no"])
    if name not in solutions:
        raise Unfit("no_answer", f"no solution {name}")
    choices = {letter.strip().upper()[:1]: option for letter, option in row["options"].items()}
    right = solutions[name].strip().upper()[:1]
    return {"id": f"{table.stem}-{name}", "question": row["question"], "options": choices, "answer_idx": right}


def _healthbench(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    """Put a conversation as one question; the criteria with their points go along as JSON."""
    turns = [(str(turn["role"]), str(turn["content"]).strip()) for turn in row["prompt"]]
    question = turns[0][1] if len(turns) == 1 else "\n\n".join(f"{role}: {content}" for role, content in turns)
    ideal = (row.get("ideal_completions_data") or {}).get("ideal_completion")
    kept = {"id": row["prompt_id"], "question": question, "answer": ideal or "(graded by criteria)"}
    points = [{"criterion": one["criterion"], "points": one["points"]} for one in row["rubrics"]]
    return kept | {"answer_kind": "report", "criteria": json.dumps(points, ensure_ascii=False)}


def _iu_xray(row: Row, table: Path, number: int, options: Mapping[str, str]) -> Row | None:
    """A report with all its views: `indiana_reports.csv` by `uid`, its pictures in `indiana_projections.csv`."""
    views = _views(table.parent / "indiana_projections.csv").get(str(row["uid"]).strip())
    findings = str(row.get("findings") or "").strip()
    if not findings or views is None:
        raise Unfit("no_answer" if views else "missing_image", "a study without findings, or without a picture")
    kept = {"id": row["uid"], "question": "Write the findings of this chest X-ray study.", "answer": findings}
    return kept | {"answer_kind": "report", "image": "|".join(views), "modality": "X_RAY"}


@functools.lru_cache(maxsize=2)
def _views(path: Path) -> dict[str, list[str]]:
    try:
        views: dict[str, list[str]] = {}
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                views.setdefault(row["uid"].strip(), []).append(row["filename"].strip())
        return views
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise Unfit("unreadable_file", f"{path.name}: {type(error).__name__}") from error


@functools.lru_cache(maxsize=16)
def _side_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unfit("unreadable_file", f"{path.name}: {type(error).__name__}") from error


_LOCAL: Final = DataSet()
CATALOGUE: Final[dict[str, DataSet]] = {
    "sample": DataSet("per picture, see ATTRIBUTION.md", root=SAMPLE_DATA, defaults={"name": SAMPLE_NAME}),
    "table": _LOCAL,
    "jsonl": DataSet(suffixes=(".jsonl", ".ndjson")),
    "json": DataSet(suffixes=(".json", ".jsonl", ".ndjson")),
    "csv": DataSet(suffixes=(".csv", ".tsv", ".json")),
    "text": DataSet(suffixes=(".txt", ".psv", ".tsv", ".csv")),
    "parquet": DataSet(suffixes=(".parquet", ".pq")),
    "image_folder": _LOCAL,
    "dicom": DataSet(adapt=ask_header),
    "hub": DataSet("as its card says"),
    "medix_rl": DataSet(
        "cc (as its card says; each origin has its own)", "MBZUAI/medix-rl-data", fetch=("*.parquet",),
        prepared={TRAIN: TRAIN, TEST: VAL}, evaluation=(TEST,), adapt=_medix_rl,
    ),
    "vqa_rad": _hub(
        "flaviagiammarino/vqa-rad", "CC0-1.0", fetch=("*.parquet",),
        revision="bcf91e7654fb9d51c8ab6a5b82cacf3fafd2fae9",
    ),
    "path_vqa": _hub(
        "flaviagiammarino/path-vqa", "MIT", fetch=("*.parquet",), revision="1685832883334b5bb5beaf4e4b333fdeecaa4ad9"
    ),
    "slake": _hub(
        "BoKelvin/SLAKE", "CC-BY-SA-4.0 (as its paper says; the Hub's card says CC-BY-4.0)",
        homepage="https://www.med-vqa.com/slake/", fetch=("*.json", "imgs.zip"),
        revision="a9083ce6c34ac3ffb17671a605962924d8a8f9e9",
        # Unpacked, every picture's folder holds a question.json and a detection.json, which are no tables.
        tables=("train*.json,valid*.json,test*.json", "*.parquet"), image_folders=("imgs",),
        defaults={"language": "en"},
    ),
    "pmc_vqa": _hub(
        "RadGenome/PMC-VQA", "CC-BY-SA-4.0", fetch=("*.csv", "*.zip"),
        revision="b56ae594f794867893143b337b4118a835794647",
        # The list of files of PubMed Central that lies beside them is no table of questions.
        tables=("train*.csv,test*.csv", "*.parquet"), image_folders=("images", "images_2", "figures"),
    ),
    "medqa": _hub(
        "GBaker/MedQA-USMLE-4-options", "CC-BY-4.0", fetch=("*.jsonl",), columns={"letter": ("answer_idx", "label")},
        revision="0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18", first_option=0,
    ),
    "medmcqa": _hub(
        "openlifescienceai/medmcqa", "Apache-2.0", fetch=("*.parquet",), evaluation=(VAL,), first_option=0,
        revision="91c6572c454088bf71b679ad90aa8dffcd0d5868",
    ),
    "pubmedqa": _hub(
        "qiaojin/PubMedQA", "MIT", fetch=("pqa_labeled/*.parquet",), prepared={TRAIN: TRAIN},
        tables=("pqa_labeled/*.parquet", "*.parquet", "*.json", "*.jsonl"), evaluation=(TRAIN, VAL, TEST),
        columns={"options": ("options",), "answer": ("final_decision",)},
        revision="9001f2853fb87cab8d220904e0de81ac6973b318", adapt=_pubmedqa,
    ),
    "mmlu": _hub(
        "hails/mmlu_no_train", "MIT", fetch=tuple(f"{subject}/*.parquet" for subject in MMLU_SUBJECTS),
        revision="b2e1ec9aa795adafe68e8e983248dbd4b52a1c60", first_option=0, options=("config",),
        tables=(",".join(f"{subject}/*" for subject in MMLU_SUBJECTS), "*.parquet", "*.jsonl", "*.json"),
        # It has no training part; the few rows of `dev` stand for one.
        splits={"dev": TRAIN}, evaluation=(TEST,), adapt=_of_subjects(MMLU_SUBJECTS),
    ),
    "mmmu": _hub(
        "MMMU/MMMU", "Apache-2.0", fetch=tuple(f"{subject}/validation*" for subject in MMMU_SUBJECTS),
        revision="98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68", options=("config",), evaluation=(VAL,),
        tables=(",".join(f"{subject}/*" for subject in MMMU_SUBJECTS), "*.parquet"), prepared={},
    ),
    "usmle": _hub(
        "medalpaca/medical_meadow_usmle_self_assessment", "unknown (NBME material)", fetch=("*.json",),
        revision="447bb42f9948bc95a9536b22432f8f7eea45f499", tables=("step1.json,step2.json,step3.json",),
        prepared={}, evaluation=(TRAIN,), adapt=_usmle,
    ),
    # The following are benchmarks only. Two name no revision: no commit was found to pin.
    "medxpertqa": _hub(
        "TsinghuaC3I/MedXpertQA", "MIT", fetch=("*.jsonl", "images.zip"), prepared={}, evaluation=(TEST,),
        revision="f4e6fe7e5a9e13d6c97d7aa2b91cdd8b80c9cc61", image_folders=("images",),
    ),
    "mmmu_pro": _hub(
        "MMMU/MMMU_Pro", "Apache-2.0", fetch=("standard (10 options)/*",), prepared={}, evaluation=(TEST,),
        revision="b037bbe72fe851ae9c9a792c7b34722542d4dc78", options=("config",),
        tables=("standard (10 options)/*", "*.parquet"), adapt=_of_subjects(MMMU_SUBJECTS),
    ),
    "medframeqa": _hub(
        "SuhaoYu1020/MedFrameQA", "CC-BY-4.0", fetch=("*.parquet",), prepared={}, evaluation=(TRAIN, TEST),
        revision="96083ae9405b2fdb687005c65902f2ee3d7c9f12",
    ),
    "careqa": _hub(
        "HPAI-BSC/CareQA", "Apache-2.0", fetch=("*.json",), prepared={}, evaluation=(TRAIN,), first_option=1,
        revision="743ea64415b8a195eb3954bdaa19c222a96370ec", columns={"id": ("unique_id",), "letter": ("cop",)},
    ),
    "medbullets": _hub(
        "mkieffer/Medbullets", "unknown", fetch=("data/*",), prepared={}, evaluation=(TEST,),
        columns={"letter": ("answer",)},
    ),
    "omnimedvqa": _hub(
        "foreverbeliever/OmniMedVQA", "per collection, see its card", fetch=("OmniMedVQA.zip",), prepared={},
        evaluation=(TRAIN,), revision="1ba51c28fc0773bdf7efb8396e5bcfd4227e22da",
        tables=("QA_information/Open-access/*.json", "Open-access/*.json"),
        columns={"answer": ("gt_answer",), "id": ("question_id",), "image": ("image_path",)},
        splits=dict.fromkeys(("test", "train", "val", "validation"), TRAIN),
    ),
    "gmai_mmbench": _hub(
        "OpenGVLab/GMAI-MMBench", "CC-BY-NC-SA-4.0", fetch=("GMAI_mm_bench_VAL.tsv",), prepared={},
        evaluation=(VAL,), columns={"id": ("index",), "letter": ("answer",)},
    ),
    "healthbench": _hub(
        "openai/healthbench", "MIT", fetch=("2025-05-07-06-14-12_oss_eval.jsonl", "consensus_*", "hard_*"),
        revision="40ee1968852fc57f625934251ac22be47077a8fb",
        prepared={}, evaluation=(TRAIN, TEST), tables=("2025-05-07-06-14-12_oss_eval.jsonl",), adapt=_healthbench,
        defaults={"extra": "criteria"},
    ),
    "vqa_med_2019": DataSet(
        "for research, see its README", homepage="https://github.com/abachaa/VQA-Med-2019", evaluation=(TEST,),
        prepared={}, tables=("VQAMed2019_Test_Questions_w_Ref_Answers.txt",),
        defaults={"columns": "image,category,question,answer"}, image_folders=("VQAMed2019_Test_Images",),
    ),
    "iu_xray": DataSet(
        "CC-BY-NC-ND-4.0", homepage="https://openi.nlm.nih.gov/", evaluation=(TRAIN,), prepared={TRAIN: TRAIN},
        tables=("indiana_reports.csv",), image_folders=("images/images_normalized", "images_normalized"),
        adapt=_iu_xray,
    ),
    "mimic_cxr": DataSet(
        "PhysioNet credentialed: from a local copy only", homepage="https://physionet.org/content/mimic-cxr/",
        prepared={TRAIN: TRAIN, VAL: VAL}, evaluation=(TEST,), defaults={"ask": "generate"}, options=("ask",),
        adapt=_mimic,
    ),
}  # fmt: skip
"""Name in a specification -> what it is. The first ten read any local files."""
