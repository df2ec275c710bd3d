"""Side files: copied, completed from the base model, and refused where they are another model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix.export.base_model import find_base
from medix.export.contract import Checkpoint
from medix.export.side_files import complete_side_files
from tests.export_behaviour.conftest import ROWS, change_json, write_json


def complete(folder: Path, checkpoint: Checkpoint, base: Path | None = None) -> dict[str, object]:
    return complete_side_files(folder, checkpoint, find_base(checkpoint, base))


def test_the_checkpoints_files_are_taken_and_the_bases_complete_them(
    folder: Path, checkpoint: Checkpoint, base: Path
) -> None:
    (base / "modeling_evil.py").write_text("raise SystemExit")
    record = complete(folder, checkpoint)
    assert record["compared_with_base"] is True
    assert record["from_base"] == ["preprocessor_config.json"]  # what llama.cpp and older transformers read
    assert record["end_of_turn_ids"] == [0, 2]
    assert not (folder / "chat_template.json").exists()  # one template is enough
    assert not list(folder.glob("*.py"))
    assert (folder / "tokenizer.json").read_bytes() == (checkpoint.base_files / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json", "generation_config.json"])
def test_a_missing_file_comes_from_the_base(folder: Path, checkpoint: Checkpoint, base: Path, name: str) -> None:
    (checkpoint.base_files / name).unlink()
    record = complete(folder, checkpoint)
    assert record["compared_with_base"] is True
    if name != "processor_config.json":
        assert (folder / name).read_bytes() == (base / name).read_bytes()
        assert name in record["from_base"]  # type: ignore[operator]


def test_end_of_turn_ids_that_a_merging_tool_lost_come_back(folder: Path, checkpoint: Checkpoint) -> None:
    """The released merger wrote defaults over this file: generation then stops at <|im_end|> alone, or nowhere."""
    write_json(checkpoint.base_files / "generation_config.json", {"_from_model_config": True, "eos_token_id": 0})
    record = complete(folder, checkpoint)
    assert record["end_of_turn_ids"] == [0, 2]
    assert "the checkpoint's named [0]" in str(record["generation_config"])
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def drop(name: str) -> Callable[[Path], None]:
    return lambda huggingface: (huggingface / name).unlink()


def changed(name: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    return lambda huggingface: change_json(huggingface / name, change)


ADDED = {"id": ROWS, "content": "<|new|>"}
WITH_BASE = {
    "another vocabulary": (
        changed("tokenizer.json", lambda c: c["model"]["vocab"].update(a=7, b=6)),
        r"the base model's vocabulary \(8 tokens\).*2 of them other: 'a' is 7, was 6",
    ),
    "other merges": (changed("tokenizer.json", lambda c: c["model"].update(merges=["b a"])), "base model's merges"),
    "another end of turn": (
        changed("tokenizer_config.json", lambda c: c.update(eos_token="<|endoftext|>")),
        r"the base model's eos_token, '<\|im_end\|>'",
    ),
    "another template": (
        lambda huggingface: (huggingface / "chat_template.jinja").write_text("<|im_start|>{{ messages }}<|im_end|>"),
        "the base model's chat template",
    ),
    "other pixels": (
        changed("processor_config.json", lambda c: c["image_processor"]["size"].update(longest_edge=99)),
        "the base model's max_pixels in the image processor, 12544; found 99",
    ),
    "code in the config": (
        changed("config.json", lambda c: c.update(auto_map={"AutoModel": "modeling_evil.Model"})),
        r"config.json of .* asks for code of its own \(auto_map\)",
    ),
    "code in the processor": (
        changed("processor_config.json", lambda c: c["image_processor"].update(auto_map={"AutoImageProcessor": "x.y"})),
        r"processor_config.json of .* asks for code of its own",
    ),
    "half a file": (
        lambda huggingface: (huggingface / "tokenizer.json").write_text('{"model": {"vo'),
        r"whole JSON in tokenizer.json; found 14 bytes .* half written",
    ),
    "more tokens than rows": (
        changed("tokenizer.json", lambda c: c["added_tokens"].append(ADDED)),
        f"token ids below {ROWS}, the rows of the embedding; found ids up to {ROWS}",
    ),
    "the image token is a word": (
        changed("config.json", lambda c: c.update(image_token_id=6)),
        "the special token that config.json calls image_token_id, 6; found 'a'",
    ),
}
WITHOUT_BASE = {
    "no tokenizer": (drop("tokenizer.json"), "a tokenizer.json beside the weights; found none"),
    "no processor": (drop("processor_config.json"), "an image processor beside a model that sees images"),
    "no template": (drop("chat_template.jinja"), "a chat template; found none"),
    "no generation config": (drop("generation_config.json"), "a generation_config.json that names the tokens"),
    "a generation that does not stop": (
        changed("generation_config.json", lambda c: c.update(eos_token_id=0)),
        r"<\|im_end\|> \(id 2\) among the tokens that end generation; found \[0\]",
    ),
    "a template of another tokenizer": (
        changed("tokenizer.json", lambda c: c["added_tokens"].pop(1)),
        r"every special token of the chat template in the tokenizer; found <\|im_start\|> missing",
    ),
}


@pytest.mark.parametrize("case", WITH_BASE)
def test_what_differs_from_the_base_is_refused(folder: Path, checkpoint: Checkpoint, case: str) -> None:
    damage, message = WITH_BASE[case]
    damage(checkpoint.base_files)
    shutil.copy(checkpoint.base_files / "config.json", folder)
    with pytest.raises(ExportError, match=message):
        complete(folder, checkpoint)


@pytest.mark.parametrize("case", WITHOUT_BASE)
def test_what_is_missing_is_never_made_up(folder: Path, checkpoint: Checkpoint, case: str) -> None:
    damage, message = WITHOUT_BASE[case]
    damage(checkpoint.base_files)
    with pytest.raises(ExportError, match=message):
        complete(folder, replace(checkpoint, run_dir=None))


def test_every_refusal_has_its_own_message() -> None:
    messages = [message for _, message in (*WITH_BASE.values(), *WITHOUT_BASE.values())]
    assert len(set(messages)) == len(messages) == 16


def test_without_a_base_the_record_says_what_was_not_proved(folder: Path, checkpoint: Checkpoint) -> None:
    record = complete(folder, replace(checkpoint, run_dir=None))
    assert record["compared_with_base"] is False
    assert "--base was not given" in str(record["unproved"])


def test_an_adapter_is_held_against_the_configs_vocabulary(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    assert complete(folder, checkpoint)["vocabulary"] == 8


class TestFindingTheBase:
    def test_the_option_wins(self, checkpoint: Checkpoint, base: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(base, other)
        assert find_base(checkpoint, other).folder == other

    def test_an_option_that_names_no_model_is_refused(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match=r"a model folder at --base; found no config\.json"):
            find_base(checkpoint, tmp_path)

    def test_a_moved_run_finds_the_model_inside_it(self, checkpoint: Checkpoint, base: Path) -> None:
        assert checkpoint.run_dir is not None
        base.rename(checkpoint.run_dir / "base")
        assert find_base(checkpoint, None).folder == checkpoint.run_dir / "base"

    def test_a_hub_name_that_is_not_here_is_not_fetched(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.run_dir is not None
        named = {"actor_rollout_ref": {"model": {"path": "nobody/nothing"}}}
        (checkpoint.run_dir / "config.yaml").write_text(json.dumps(named))
        found = find_base(checkpoint, None)
        assert (found.name, found.folder) == ("nobody/nothing", None)
        assert "neither a folder here nor in the local hub cache" in found.why_not
