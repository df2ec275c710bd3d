"""The model card and the prompt; how a folder takes its name; how it goes to the hub; the command's refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medix.errors import ExportError, MedixError
from medix.prompts import load_prompt
from medix_verl.cli import app
from medix_verl.export import child, pipeline, push
from medix_verl.export.card import fill_card, plain, write_card
from medix_verl.export.checkpoint import BaseModel
from medix_verl.export.generate import compare_tokens

QWEN = BaseModel("Qwen/Qwen2.5-VL-7B-Instruct")
TOKEN = "hf_" + "S3cret" * 5
HOSTILE = (
    "---\nlicense: mit\n---\n# Cured | **yes** <script>x</script> [x](javascript:y) `a` ~~~ \u202eevil ![i](http://e)"
)


def write_run(run: Path, text: str = "harmless") -> Path:
    """Write every file that the card reads, with `text` wherever a file may hold text."""
    estimate = {"estimate": {"mean": 0.8537, "low": 0.7903, "high": 0.9167}, "items": 123}
    files: dict[str, Any] = {
        "config.yaml": {"algorithm": {"adv_estimator": "grpo"}, "medix": {"judge": {"api_key": "sk-secret"}},
                        "actor_rollout_ref": {"model": {"path": text}, "actor": {"optim": {"lr": 3e-4}}}},
        "reward_table.json": [{"component": text, "weight": 0.5, "effective": 1.0}],
        "versions.json": {"verl": "0.9.1", text: text},
        "summary.json": {"accuracy_before": 0.41463, "accuracy_after": 0.85366, "format_before": text},
        "data/manifest.json": {"sources": [{"name": text, "licence": text, "revision": ""}],
                               "splits": {text: {"rows": 9}}, "prompt": {"text": "{images}Q: {question} (own)"}},
        "eval/trained/scores.json": {"settings": {"judge": {"judges": [{"model": "/home/al/judge"}]}},
                                     "tasks": {text: estimate}},
    }  # fmt: skip
    for name, content in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps(content))
    return run


def card_of(folder: Path, run: Path | None, base: BaseModel = QWEN) -> str:
    folder.mkdir(exist_ok=True)
    write_card(folder, {"step": 7, "generations": {"text": {}, "image": {}}}, run, base)
    return (folder / "README.md").read_text()


def test_the_card_says_what_the_run_wrote(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out", write_run(tmp_path / "first"))
    assert yaml.safe_load(card[4:].split("\n---\n", 1)[0])["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    for line in (
        "# first",
        "Checkpoint of training step 7.",
        "**Research use only.**",
        "| harmless | 0.5 | 1 |",
        "| advantage | grpo |",
        "| accuracy | 0.4146 | 0.8537 |",
        "| trained | harmless | 123 | 85.4% | 79.0% to 91.7% | judge |",
        "| verl | 0.9.1 |",
        "- Data source harmless: harmless.",
        'BEFORE, AFTER = "", "\\nQ: {question} (own)"',
    ):
        assert line in card, line
    assert "sk-secret" not in card
    assert "left out" not in card
    assert (tmp_path / "out/training_prompt.txt").read_text() == "{images}Q: {question} (own)\n"


def test_what_is_absent_is_left_out_and_said(tmp_path: Path) -> None:
    card = card_of(tmp_path, None, BaseModel(None))
    assert "left out: sources; splits; rewards; settings; figures; evaluation; versions." in card
    assert "Base model: not known here" in card  # no licence is made up
    assert (tmp_path / "training_prompt.txt").read_text().strip() == load_prompt()


@pytest.mark.parametrize("licence", ["!!bool foo", "!!timestamp foo", "["])
def test_a_base_models_card_that_is_no_yaml_costs_its_licence_only(licence: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/README.md").write_text(f"---\nlicense: {licence}\n---\n")
    assert "# first" in card_of(tmp_path / "out", write_run(tmp_path / "first"), BaseModel("a/b", tmp_path / "base"))


def test_an_evaluation_enters_the_card_afterwards(tmp_path: Path) -> None:
    card_of(tmp_path / "out", None)
    (tmp_path / "out/export.json").write_text('{"step": 7}')
    fill_card(tmp_path / "out", write_run(tmp_path / "first"))
    assert "85.4%" in (tmp_path / "out/README.md").read_text()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out", write_run(tmp_path / "run", HOSTILE), BaseModel(HOSTILE))
    front, body = card[4:].split("\n---\n", 1)
    assert {"license", "base_model"}.isdisjoint(yaml.safe_load(front))
    for piece in ("<script", "**yes**", "[x](", "![i]", "\u202e", "\n# Cured", "license: mit\n"):
        assert piece not in body, piece


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "data/manifest.json", "reward_table.json"])
@pytest.mark.parametrize(
    "content", ["[1, 2", "null", '"x"', '{"splits": [1], "sources": {"a": 1}}', '{"a":' * 9999, "\xff"]
)
def test_damaged_files_cost_their_section_only(name: str, content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(content.encode("latin-1"))
    assert "| verl | 0.9.1 |" in card_of(tmp_path / "out", run)


@given(st.text(max_size=200))
def test_any_text_is_one_cell(text: str) -> None:
    cell = plain(text).replace("\\\\", "").replace("\\|", "")
    assert not set("|<\n") & set(cell)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The child's work, faked: one file of weights. `error` is raised in its place."""
    how: dict[str, Any] = {"weights": "first"}

    def build(tell: Any, checkpoint: Any, base: Any, part: Path, *rest: Any) -> None:
        if "error" in how:
            raise how["error"]
        assert list(part.parent.glob("out*")) != [part.with_name("out")]
        (part / "model.safetensors").write_text(how["weights"])
        tell(side_files={}, weights={"unproved": []}, **how.get("told", {"generations": {}}))

    def run_child(job: Callable[..., None], *arguments: Any, gpus: bool = False) -> Any:
        told: list[Any] = []
        build(lambda **message: told.append(message), *arguments)
        return iter(told)

    monkeypatch.setattr(child, "run_child", run_child)
    return how


@pytest.fixture
def actor(tmp_path: Path) -> Path:
    folder = tmp_path / "run/checkpoints/global_step_3/actor"
    folder.mkdir(parents=True)
    (folder / "model_world_size_1_rank_0.pt").write_bytes(b"x" * 1234)
    return folder


def test_an_earlier_export_is_replaced_only_when_asked(actor: Path, tmp_path: Path, done: dict[str, Any]) -> None:
    out = pipeline.export(actor, tmp_path / "out")
    (out / "old").write_text("")
    with pytest.raises(MedixError, match="exists"):
        pipeline.export(actor, out)
    done["weights"] = "second"
    for error in (KeyboardInterrupt(), ValueError("a fault"), OSError(28, "No space left on device", "x")):
        done["error"] = error
        with pytest.raises(type(error)):
            pipeline.export(actor, out, overwrite=True)
        assert (out / "model.safetensors").read_text() == "first"
    del done["error"]
    (tmp_path / "out.part").mkdir()  # what a killed export left
    for name in ("export.lock", "model.safetensors"):
        (tmp_path / "out.part" / name).write_text("")
    pipeline.export(actor, out, overwrite=True)
    assert (out / "model.safetensors").read_text() == "second"
    assert not (out / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_folder_of_others_is_never_replaced(actor: Path, tmp_path: Path, done: dict[str, Any]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    (tmp_path / "x.part").mkdir()
    for out, message in (("mine", "no folder that an export wrote"), ("x", "no export wrote it"), ("run", "around")):
        with pytest.raises(MedixError, match=message):
            pipeline.export(actor, tmp_path / out, overwrite=True)


def test_what_was_not_checked_is_said(actor: Path, tmp_path: Path, done: dict[str, Any]) -> None:
    done["told"] = {"skipped": "too little memory"}
    record = json.loads((pipeline.export(actor, tmp_path / "out") / "export.json").read_text())
    assert record["not_checked"][0] == "that the folder loads and answers: too little memory"
    assert record["checkpoint"] == "run/checkpoints/global_step_3/actor"


def test_long_work_says_what_it_is_at(capsys: pytest.CaptureFixture[str]) -> None:
    with pipeline.shown_progress(every_s=0.05) as report:
        report("loading torch")
        time.sleep(0.3)
    assert "export: 0 s, loading torch" in capsys.readouterr().err


def dies(tell: Any, signal: int) -> None:
    os.kill(os.getpid(), signal)


@pytest.mark.slow
def test_a_child_that_dies_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys, pickle; _, (signal,) = pickle.load(sys.stdin.buffer); os.kill(os.getpid(), signal)"
    monkeypatch.setattr(child, "python_command", lambda module: [sys.executable, "-c", code])
    assert "killed" in next(child.run_child(dies, 9))["skipped"]
    with pytest.raises(ExportError, match=r"died \(-11\)"):
        next(child.run_child(dies, 11))


class FakeApi:
    """The hub's client, faked: one repository, kept in memory."""

    private: bool | None = None
    files: dict[str, bytes]
    commits = 0
    error: Exception | None = None

    def create_repo(self, repo: str, private: bool, **_: Any) -> str:
        type(self).private = private if self.private is None else self.private
        return f"https://hub/{repo}"

    def model_info(self, repo: str) -> Any:
        return SimpleNamespace(private=self.private)

    def list_repo_files(self, repo: str) -> list[str]:
        return list(self.files)

    def create_commit(self, repo: str, operations: list[Any], **_: Any) -> None:
        if self.error:
            raise self.error
        type(self).commits += 1
        for one in operations:
            if hasattr(one, "path_or_fileobj"):
                self.files[one.path_in_repo] = Path(one.path_or_fileobj).read_bytes()
            else:
                del self.files[one.path_in_repo]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    import huggingface_hub

    class Fake(FakeApi):
        files: dict[str, bytes] = {}  # noqa: RUF012

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda endpoint: Fake())
    return Fake


@pytest.fixture
def exported(tmp_path: Path, actor: Path, done: dict[str, Any]) -> Path:
    from medix_verl.export.weights import file_digest

    folder = pipeline.export(actor, tmp_path / "out")
    record = {"weights": {"files": {"model.safetensors": file_digest(folder / "model.safetensors")}}, "step": 3}
    (folder / "export.json").write_text(json.dumps(record))
    return folder


def test_a_push_is_one_private_commit_of_what_an_export_writes(hub: type[FakeApi], exported: Path) -> None:
    for name in (".env", "notes.txt", "model.py"):
        (exported / name).write_text("TOKEN=x")
    hub.files |= {"model-00001-of-00002.safetensors": b"stale", "LICENSE": b"mine"}
    assert "is private: 4 files there, 1 removed" in push.push(exported, "me/model", public=False)
    assert (hub.private, hub.commits) == (True, 1)
    assert hub.files.keys() == {"LICENSE", "README.md", "export.json", "model.safetensors", "training_prompt.txt"}


def test_a_public_repository_gets_nothing_unless_asked(hub: type[FakeApi], exported: Path) -> None:
    hub.private = False
    with pytest.raises(ExportError, match="is public"):
        push.push(exported, "me/model", public=False)
    assert hub.commits == 0
    assert "is public" in push.push(exported, "me/model", public=True)


def test_a_hub_that_fails_is_one_message_without_the_token(hub: type[FakeApi], exported: Path) -> None:
    hub.error = OSError(f"403: {TOKEN} may not write")
    with pytest.raises(ExportError, match=r"The hub did not take out: OSError: 403: \*\*\*") as failure:
        push.push(exported, "me/model", public=False)
    assert (failure.value.__cause__, hub.files) == (None, {})


@pytest.mark.parametrize("name", ["model", "a/b/c", "../secret", "a/..", "a b/c", "", "a/b--c"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="is no repository's name"):
        push.refuse_what_cannot_be_pushed(name)


@pytest.mark.parametrize("damage", ["changed", "a link", "a second file"])
def test_what_is_not_as_it_was_exported_is_not_pushed(damage: str, hub: type[FakeApi], exported: Path) -> None:
    path = exported / "model.safetensors"
    shutil.copy(path, exported.parent / "elsewhere")
    if damage == "changed":
        path.write_text("other")
    elif damage == "a link":
        path.unlink()
        path.symlink_to(exported.parent / "elsewhere")
    else:
        shutil.copy(path, exported / "model-00002-of-00002.safetensors")
    result = CliRunner().invoke(app, ["export", str(exported), "--push", "me/model"])
    assert isinstance(result.exception, ExportError)
    assert hub.commits == 0


REFUSED = {
    "public without push": (["--out", "x", "--public"], "--public needs a repository"),
    "an unknown dtype": (["--out", "x", "--dtype", "int8"], "--dtype is 'int8'"),
    "no out": ([], "Without --out"),
    "a dtype for a push": (["--push", "a/b", "--dtype", "bf16"], "drop ['--dtype']"),
    "no repository": (["--out", "x", "--push", "model"], "is no repository's name"),
    "best of one step": (["--out", "x", "--best", "--dry-run"], "chooses a step of a run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options_are_refused_before_the_work(case: str, actor: Path) -> None:
    options, message = REFUSED[case]
    result = CliRunner().invoke(app, ["export", str(actor.parent), *options])
    assert isinstance(result.exception, MedixError)
    assert message in str(result.exception)


def test_a_dry_run_shows_what_would_be_read_and_sent(actor: Path, exported: Path) -> None:
    common = ["--push", "me/model", "--dry-run"]
    plan = json.loads(CliRunner().invoke(app, ["export", str(actor), "--out", "x", *common]).stdout)
    assert plan["read"] == {"model_world_size_1_rank_0.pt": 1234}
    assert (plan["step"], plan["visibility"]) == (3, "private")
    assert "model.safetensors" in json.loads(CliRunner().invoke(app, ["export", str(exported), *common]).stdout)["send"]


@pytest.mark.slow
def test_the_script_gives_its_knobs_to_the_command(actor: Path, tmp_path: Path) -> None:
    knobs = {"CHECKPOINT": str(actor), "OUT": str(tmp_path / "out"), "PUSH": "me/mine", "PUBLIC": "1", "DRY_RUN": "1"}
    script = str(Path(__file__).resolve().parents[3] / "recipes/medix/export_hf.sh")
    shown = subprocess.run(
        ["bash", script], env={**os.environ, **knobs, "DTYPE": "bf16"}, capture_output=True, text=True
    )
    plan = json.loads(shown.stdout)
    assert (plan["step"], plan["push"], plan["visibility"]) == (3, "me/mine", "public")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("theirs", "same"), [([5, 6, 7], 3), ([5, 9, 1], 1), ([5], 1), ([5, 6, 8], None), ([4, 6, 7], None), ([5, 6], None)]
)
def test_vllm_may_differ_from_a_near_tie_on(theirs: list[int], same: int | None) -> None:
    """Ours are 5, 6, 7, and only at the second the best two choices were nearly alike."""
    ours = {"text": {"tokens": [5, 6, 7], "margins": [2.0, 0.1, 3.0]}}
    if same is None:
        with pytest.raises(ExportError, match="vLLM answers the text question with"):
            compare_tokens(ours, {"text": theirs})
    else:
        assert compare_tokens(ours, {"text": theirs}) == {"text": same}
