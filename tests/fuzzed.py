"""The commands that are fuzzed: for each a good folder, and a call that returns figures of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from evaluation.judging.stage import scored_items
from evaluation.run_folder import RunFolder
from medix.files import shipped
from medix.prompts import load_prompt
from medix.response import format_response
from medix.secrets import mask_secrets
from medix_verl.cli import app, explain
from medix_verl.export.manifest import write_manifest
from medix_verl.export.weights import file_digest
from medix_verl.recipe.knobs import KNOBS
from medix_verl.report.run_folder import load_run
from medix_verl.report.settings import flatten
from medix_verl.run_config import compose_config
from tests.damage import OTHER, SECRET, TOLD, Damage
from tests.evaluation.conftest import FakeServer
from tests.medix_verl.export.test_twelve import FURTHER, SHARDS, TWELVE
from tests.medix_verl.report.conftest import write_synthetic_run

Figures = dict[str, Any]


class Refused(Exception):
    """The command ended with a message and an exit code other than 0."""


def leaks(text: str) -> bool:
    """Tell whether what the `medix` command would show has the content of a foreign file, or a password."""
    return any(secret in mask_secrets(text) for secret in (SECRET, "hunter2secret"))


def medix(*words: object) -> str:
    """Return what a command prints; its error is raised as the command raised it."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(result.exception, SystemExit):
        raise Refused(result.output)
    if result.exception:
        raise result.exception
    return result.output


@dataclass
class Fuzz:
    """A command under test.

    Attributes:
        call: runs it on a folder of which one file was changed; returns figures by key, and whether it said that
            something was left out.
        build: makes the good folder.
        targets: the files that are changed, as patterns.
        own: further damages by name, and the pattern of the files that they are for.
    """

    name: str
    build: Callable[[Path], object]
    call: Callable[[Path, Path], tuple[Figures, bool]]
    targets: tuple[str, ...]
    own: dict[str, tuple[str, Damage]] = field(default_factory=dict)


def picture(number: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (40, 60, len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode if mode != "L" else None)


IMAGES = {"png": "RGB", "jpg": "RGB", "gif": "L", "bmp": "RGB", "tif": "L", "webp": "RGB", "ppm": "RGB", "dcm": ""}


def build_data(folder: Path) -> None:
    """Write the same rows as JSON lines, JSON, CSV and parquet, each beside its pictures, and once with an archive."""
    from tests.data_prep.test_dicom import CT, make

    rows = [
        {"id": f"r{n}", "question": f"Organ {n}?", "answer": f"organ {n}", "image": f"images/{n}.{end}"}
        for n, end in enumerate(IMAGES)
    ]
    for form in ("jsonl", "json", "csv", "parquet"):
        place = folder / form / "images"
        place.mkdir(parents=True)
        for n, (end, mode) in enumerate(IMAGES.items()):
            if end == "dcm":
                (place / f"{n}.dcm").write_bytes(make(np.arange(2400, dtype=np.int16).reshape(40, 60), **CT))
            else:
                picture(n, "RGBA" if end == "png" else mode).save(place / f"{n}.{end}")
    (folder / "jsonl/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "json/rows.json").write_text(json.dumps(rows))
    with (folder / "csv/rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "parquet/rows.parquet")
    shutil.copytree(folder / "json", folder / "zip")
    shutil.make_archive(str(folder / "zip/images"), "zip", folder / "zip", "images")
    shutil.rmtree(folder / "zip/images")


def prepare(folder: Path, target: Path) -> tuple[Figures, bool]:
    out = folder / "out"
    said = medix(
        "prepare", f"table:{folder / target.relative_to(folder).parts[0]}", "--out", out, "--max-quarantine", 1
    )
    rows = [row for split in out.glob("*.parquet") for row in pq.read_table(split).to_pylist()]
    figures = {}
    for row in rows:
        pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in row["images"]]
        digests = [hashlib.sha256(one.tobytes()).hexdigest() for one in pixels]
        figures[row["extra_info"]["question"]] = (row["reward_model"]["ground_truth"], digests)
    return figures, "quarantined:" in said


def build_score(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(Path(shipped("recipes/medix")) / "config/reward_preset/strict.yaml", folder / "own.yaml")
    judged = [("yes", 0.9), ("no", 0.2), ("yes", 0.4), ("no", 0.95)]
    rows = [
        {
            "id": f"r{n}",
            "response": format_response("X_RAY", "It is bright.", f"finding {n}"),
            "reference": f"pneumonia {n}",
            "modality": "X_RAY",
            "question": f"What is shown in {n}?",
            "aliases": [f"lung infection {n}"],
            "assume_judge": says,
            "assume_similarity": cosine,
        }
        for n, (says, cosine) in enumerate(judged * 2)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def score(folder: Path, target: Path) -> tuple[Figures, bool]:
    said = medix("score", "--jsonl", folder / "rows.jsonl", "--json", "--preset", folder / "own.yaml")
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {row["sample_id"]: row["score"] for row in rows}, "half written" in said


def build_eval(folder: Path) -> None:
    """Two finished evaluations, judged and with pages, and a task of one's own with its rows."""
    server = FakeServer()
    (folder / "task").mkdir(parents=True)
    (folder / "task/own.yaml").write_text(
        json.dumps({"name": "own", "source": "jsonl:rows.jsonl", "summary": "x", "judging": "verdict"})
    )
    rows = [{"id": f"r{n}", "question": f"Which organ is number {n}?", "answer": f"organ {n}"} for n in range(12)]
    (folder / "task/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a", "b"):
        server.reply = lambda prompt, asked, name=name: "organ 3" if name == "a" else "It is organ 4, or another."
        ask_and_judge(folder, server.url, folder / name)
    server.stop()


def ask_and_judge(folder: Path, url: str, out: Path) -> str:
    task, data = folder / "task/own.yaml", f"own={folder / 'task'}"
    asked = ("--model", "fake", "--model-url", url, "--tasks", task, "--data", data, "--out", out)
    return medix("eval", "run", *asked, "--judge-url", "rule-judge", "--timeout", 2, "--retries", 0)


def evaluate(folder: Path, target: Path) -> tuple[Figures, bool]:
    if target.is_relative_to(folder / "task"):
        server = FakeServer()
        server.reply = lambda prompt, asked: "organ 3"
        try:
            said = ask_and_judge(folder, server.url, folder / "a2")
        finally:
            server.stop()
        run = RunFolder(folder / "a2")
    else:
        run = RunFolder(folder / "a")
        said = medix("eval", "score", "--out", run.path)
        medix("eval", "report", "--out", run.path)
        medix("eval", "compare", run.path, folder / "b")
        assert not leaks((run.path / "evaluation.html").read_text()), "a foreign file is in the page"
    figures = {item.uid: (item.row.reference, item.score) for item in scored_items(run) if item.score is not None}
    return figures, bool(re.search(r"Unscored: [1-9]|Refused rows: [1-9]|passed over|half written", said))


def build_run(folder: Path) -> None:
    run = write_synthetic_run(folder / "run")
    (run / "eval/trained").mkdir(parents=True)
    scores = {"tasks": {"own": {"items": 9, "estimate": {"mean": 0.5, "low": 0.4, "high": 0.6}}}}
    (run / "eval/trained/scores.json").write_text(json.dumps(scores))
    (run / "guards.jsonl").write_text('{"level": "warn", "step": 3, "message": "m", "fix": "f"}\n')
    table = [{"component": "format", "weight": 0.1, "effective": 0.1}]
    (run / "reward_table.json").write_text(json.dumps(table))
    (run / "summary.json").write_text('{"accuracy_before": 0.4, "accuracy_after": 0.8}')


def report(folder: Path, target: Path) -> tuple[Figures, bool]:
    said = medix("report", folder / "run")
    page, run = (folder / "run/report.html").read_text(), load_run(folder / "run")
    assert SECRET not in page, "a foreign file is in the page"
    curve = folder / "run/curve.csv"
    lines = curve.read_text().splitlines() if curve.exists() else []
    figures: Figures = {line.partition(",")[0]: line for line in lines}
    figures |= {(group.key, one.session): one.reward for group in run.groups for one in group.responses}
    figures |= {key: value for key, value in flatten(run.config).items()}
    return figures, bool(run.notes) or "no curve" in said


def build_base(folder: Path) -> Path:
    """Write the demo's tiny model, untrained."""
    from examples.tiny_vlm.model import build_model, save
    from examples.tiny_vlm.tokenizer import train_tokenizer

    base = folder / "base"
    base.mkdir(parents=True)
    tokenizer = train_tokenizer(["heart x-ray yes no"] * 10, load_prompt())
    save(base, build_model(tokenizer, 0), tokenizer)
    return base


def build_checkpoint(folder: Path) -> None:
    """A run with a checkpoint of the demo's tiny model on two ranks, its manifest, and the base model beside it."""
    from tests.medix_verl.export.conftest import Recipe, save_sharded

    base, actor = build_base(folder), folder / "run/checkpoints/global_step_5/actor"
    save_sharded(Recipe(base=base), actor)
    for path in base.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, actor / "huggingface")
    write_manifest(actor)
    (folder / "run/checkpoints/latest_checkpointed_iteration.txt").write_text("5")
    (folder / "run/config.yaml").write_text(json.dumps({"data": {"max_response_length": 8}}))


def export(folder: Path, target: Path) -> tuple[Figures, bool]:
    out = folder / "out"
    medix("export", folder / "run", "--out", out, "--base", folder / "base")
    card = {"README.md", "export.json", "training_prompt.txt"}
    return {path.name: file_digest(path) for path in out.iterdir() if path.name not in card}, False


def on_actor(damage: Callable[[Path], object]) -> tuple[str, Damage]:
    """Make a damage of one to a checkpoint's whole folder."""
    return f"run/**/{SHARDS[0]}", lambda rng, path: (damage(path.parent), TOLD)[1]


def build_ready(folder: Path) -> None:
    """What preflight looks at before a run: a model and prepared data."""
    build_base(folder)
    rows = [{"id": f"r{n}", "question": f"Organ {n}?", "answer": f"organ {n}", "image": f"{n}.png"} for n in range(8)]
    (folder / "table").mkdir()
    for n in range(8):
        picture(n).save(folder / f"table/{n}.png")
    (folder / "table/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    medix("prepare", f"table:{folder / 'table'}", "--out", folder / "data", "--val-fraction", 0)


def preflight(folder: Path, target: Path) -> tuple[Figures, bool]:
    """Return what each check found. Only the scorers are left out: no weight asks for one."""
    files = {"train_files": folder / "data/train.parquet", "val_files": folder / "data/train.parquet"}
    off = [f"medix.reward.components.{name}.weight=0" for name in ("llm_accuracy", "embed_accuracy")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medix_verl.preflight.machine.probe", lambda modules: {"failed": {}, "platform": "cpu"})
        said = medix(
            "preflight", "--json", f"medix.run_dir={folder / 'run'}", f"actor_rollout_ref.model.path={folder / 'base'}",
            *(f"data.{name}={path}" for name, path in files.items()), "data.train_batch_size=8",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8", *off,
        )  # fmt: skip
    checks = {check["name"]: check for check in json.loads(said)["checks"]}
    machine = ("CPUs", "limits", "main memory", "disk")  # of this machine, not of the files
    figures = {name: check["found"].replace(str(folder), "") for name, check in checks.items() if name not in machine}
    return figures, False


def build_study(folder: Path) -> None:
    """A study of two variants and two seeds that is done."""
    from tests.medix_verl.ablation.test_ablation import write_study

    folder.mkdir()
    study = write_study(folder)
    study.write_text(study.read_text().replace(f"{folder}/", ""))  # a copy is to read its own files
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        medix("ablate", study, "--out", folder / "out")


def ablate(folder: Path, target: Path) -> tuple[Figures, bool]:
    """Return the table of a study whose runs are there; the study's own file is a plan to be shown as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        medix("ablate", "study.yaml", "--out", "out", "--dry-run")
        said = medix("ablate", "study.yaml", "--out", "out", "--report-only")
    page = (folder / "out/study.html").read_text()
    assert not leaks(page), "a foreign file is in the page"
    lines = (folder / "out/table.csv").read_text().splitlines()
    return {",".join(line.split(",")[:4]): line for line in lines}, "note:" in said


KNOB_VALUES = (
    "x'; mkdir pwned; '", "$(mkdir pwned)", "`mkdir pwned`", "a b", "a=b", "[a,b]", "{a: b}", "\\", "'", '"', "a,b",
    "null", "1", "../hardware/cpu", "${oc.env:OPENAI_API_KEY}", "${oc.env:HOME}", "x" * 5000, "\u202e", "é", "-1",
    "1e999", "--help", "\n", "http://u:hunter2secret@h:1", "@/etc/passwd", "$OPENAI_API_KEY", "*", "~", "/dev/zero",
    "a#b", "!!python/name:os", "%s",
)  # fmt: skip
KEYS = (
    "trainer.save_freq", "medix.scorer.judge.timeout_s", "medix.reward.components.format.weight", "data.train_files",
    "+medix.reward.components.mine.path", "medix.watchdog.pearson_stop_below", "actor_rollout_ref.rollout.n",
    "algorithm", "hydra.run.dir", "medix", "trainer.logger", "medix.scorer.judge.api_key_env", "nonsense.key",
    "~trainer", "reward_preset",
)  # fmt: skip


def _knobs(rng: Random, path: Path) -> str:
    knob = {rng.choice(list(KNOBS)): rng.choice(KNOB_VALUES)} if rng.random() < 0.6 else {}
    overrides = [] if knob else [f"{rng.choice(KEYS)}={rng.choice(KNOB_VALUES)}"]
    path.write_text(json.dumps({"knobs": knob, "overrides": overrides}))
    return OTHER


def build_knobs(folder: Path) -> None:
    folder.mkdir()
    (folder / "typed.txt").write_text('{"knobs": {}, "overrides": []}')


def words(line: str) -> list[str]:
    """Return the words of a command in a comment; a line of prose, whose apostrophes are no quotes, as it is."""
    try:
        return shlex.split(line.replace("#", ""))
    except ValueError:
        return [line]


def recipe(folder: Path, target: Path) -> tuple[Figures, bool]:
    """Return the resolved configuration of a dry run, or of preflight; a knob's value has to be found in the plan."""
    typed = json.loads(target.read_text())
    config: list[Any] = []

    def seen(name: str, overrides: Any = ()) -> Any:
        config.append(compose_config(name, overrides))
        return config[-1]

    with pytest.MonkeyPatch.context() as patch:
        for name in KNOBS:
            patch.delenv(name, raising=False)
        for name, value in (typed["knobs"] | {"DRY_RUN": "1", "OPENAI_API_KEY": SECRET}).items():
            patch.setenv(name, value)
        patch.setattr("medix_verl.recipe.stages.compose_config", seen)
        try:
            said = medix("recipe", "medix_cpu", "--", *typed["overrides"])
        except Exception as error:
            known = error if isinstance(error, Refused) else explain(error)
            if known is None:
                raise
            assert not leaks(str(known)), "a password is shown"  # asked while its variable is set, as the command does
            raise Refused from error
    assert not leaks(said), "a password is shown"
    for value in (value for name, value in typed["knobs"].items() if name in ("MODEL", "DATA", "RUN", "JUDGE_MODEL")):
        shown = [word for line in said.splitlines() for word in words(line)] if value.isprintable() else [value]
        assert any(value in word or mask_secrets(value) in word for word in shown), "the value is not in the plan"
    from omegaconf import OmegaConf

    changed = bool(typed["knobs"] or typed["overrides"])  # one knob may set many keys
    return flatten(OmegaConf.to_container(config[-1])), changed  # type: ignore[arg-type]


FUZZES = [
    Fuzz("prepare", build_data, prepare, ("*/rows.*", "*/images/*", "zip/images.zip")),
    Fuzz("score", build_score, score, ("rows.jsonl", "own.yaml")),
    Fuzz("eval", build_eval, evaluate, ("task/*", "a/run.json", "a/*.jsonl", "a/asked/*", "a/scores.json")),
    Fuzz("export", build_checkpoint, export, ("run/**/*.pt", "run/**/*.json", "run/**/*.txt", "run/*.yaml", "base/*"),
         {name: on_actor(damage) for name, (damage, _) in (TWELVE | FURTHER).items()}),
    Fuzz("report", build_run, report, ("run/*.*", "run/*/*.*", "run/*/*/*.json")),
    Fuzz("preflight", build_ready, preflight, ("base/*", "data/*.parquet")),
    Fuzz("ablate", build_study, ablate,
         ("*.yaml", "*.jsonl", "out/runs/*/*/*.jsonl", "out/runs/*/*/*/*.jsonl", "out/runs/*/*.json")),
    Fuzz("recipe", build_knobs, recipe, (), {"knobs and overrides": ("typed.txt", _knobs)}),
]  # fmt: skip
