"""Side files: copied, completed from the base model, and refused where they are another model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ExportError
from medix_verl.export.base_model import find_base
from medix_verl.export.contract import Checkpoint
from medix_verl.export.side_files import complete_side_files
from tests.medix_verl.export_behaviour.conftest import ROWS, TEMPLATE, change_json, write_json


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
    assert record["generation_config"] == "the base model's; the checkpoint's has other eos_token_id"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def drop(name: str) -> Callable[[Path], None]:
    return lambda huggingface: (huggingface / name).unlink()


def changed(name: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    return lambda huggingface: change_json(huggingface / name, change)


def test_what_transformers_writes_otherwise_is_no_difference(folder: Path, checkpoint: Checkpoint) -> None:
    """Settings that it fills in, names that it changed, and ByteLevel's flags that change no token."""

    def fill_in(settings: dict[str, Any]) -> None:
        kind = {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen2_5_VLProcessor"}
        filled = {"do_resize": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 3, "device": None}
        settings["image_processor"].update(kind | filled)

    change_json(checkpoint.base_files / "processor_config.json", fill_in)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    change_json(checkpoint.base_files / "tokenizer.json", lambda c: c.update(pre_tokenizer=level, decoder=decoder))
    assert complete(folder, checkpoint)["compared_with_base"] is True


def test_a_template_inside_json_gets_the_bases_file_where_it_is_the_same(folder: Path, checkpoint: Checkpoint) -> None:
    """A processor of transformers 5 finds its template in a file only."""
    drop("chat_template.jinja")(checkpoint.base_files)
    change_json(checkpoint.base_files / "tokenizer_config.json", lambda c: c.update(chat_template=TEMPLATE))
    assert "chat_template.json" in complete(folder, checkpoint)["from_base"]  # type: ignore[operator]


GENERATION = {"eos_token_id": [2, 0], "temperature": 1e-6, "repetition_penalty": 1.05, "do_sample": True}
LOST = {
    # the checkpoint's file -> what the record says of it, None where it stays
    "temperature and penalty": (
        {"eos_token_id": [0, 2], "do_sample": True, "transformers_version": "5.9.0"},
        "the base model's; the checkpoint's has other repetition_penalty, temperature",
    ),
    "a setting too many": (GENERATION | {"top_k": 1}, "the base model's; the checkpoint's has other top_k"),
    "nothing": (GENERATION | {"transformers_version": "5.9.0", "_from_model_config": True}, None),
}


@pytest.mark.parametrize("case", LOST)
def test_settings_of_generation_that_were_lost_come_back(
    case: str, folder: Path, checkpoint: Checkpoint, base: Path
) -> None:
    ours, said = LOST[case]
    write_json(base / "generation_config.json", GENERATION)
    write_json(checkpoint.base_files / "generation_config.json", ours)
    assert complete(folder, checkpoint).get("generation_config") == said
    written = json.loads((folder / "generation_config.json").read_text())
    assert written == (ours if said is None else GENERATION)


class TestLinks:
    """A checkpoint of somebody else's may hold links; an export is pushed."""

    def test_to_a_file_elsewhere_is_refused(self, folder: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("hf_secret")
        (checkpoint.base_files / "merges.txt").symlink_to(tmp_path / "token")
        with pytest.raises(ExportError, match=r"side files inside .*merges\.txt, a link to a file outside"):
            complete(folder, checkpoint)
        assert not (folder / "merges.txt").exists()

    @pytest.mark.parametrize("cache", ["hub", "another"])
    def test_as_the_hubs_cache_makes_them_is_followed(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        base: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        cache: str,
    ) -> None:
        """snapshots/REVISION/FILE points to blobs/HASH of the same repository."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / cache))
        blobs, snapshot = tmp_path / "hub/models--Qwen--X/blobs", tmp_path / "hub/models--Qwen--X/snapshots/1"
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for path in base.iterdir():
            path.rename(blobs / path.name)
            (snapshot / path.name).symlink_to(blobs / path.name)
        record = complete(folder, checkpoint, snapshot)
        assert record["from_base"] == ["preprocessor_config.json"]
        assert not (folder / "preprocessor_config.json").is_symlink()


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
    "no pixel limits": (
        changed("processor_config.json", lambda c: c["image_processor"].pop("size")),
        "the base model's max_pixels in the image processor, 12544; found None",
    ),
    "no mean": (
        changed("processor_config.json", lambda c: c["image_processor"].pop("image_mean")),
        r"the base model's image_mean in the image processor, \[0.48, .*; found None",
    ),
    "no normalisation": (
        changed("processor_config.json", lambda c: c["image_processor"].update(do_normalize=False)),
        "the base model's do_normalize in the image processor, True; found False",
    ),
    "another scale": (
        changed("processor_config.json", lambda c: c["image_processor"].update(rescale_factor=1.0)),
        "the base model's rescale_factor in the image processor, 0.0039.*; found 1.0",
    ),
    "another processor": (
        changed("processor_config.json", lambda c: c["image_processor"].update(image_processor_type="CLIP")),
        "the base model's image_processor_type in the image processor, Qwen2VLImageProcessor; found CLIP",
    ),
    "a crop": (
        changed("processor_config.json", lambda c: c["image_processor"].update(crop_size=9)),
        "the base model's crop_size in the image processor, None; found 9",
    ),
    "lower case": (
        changed("tokenizer.json", lambda c: c.update(normalizer={"type": "Lowercase"})),
        """the base model's normalizer in tokenizer.json, {"type": "NFC"}; found {"type": "Lowercase"}""",
    ),
    "no normalizer": (
        changed("tokenizer.json", lambda c: c.pop("normalizer")),
        "the base model's normalizer in tokenizer.json, .*; found null",
    ),
    "another split into words": (
        changed("tokenizer.json", lambda c: c["pre_tokenizer"].update(use_regex=True)),
        "the base model's pre_tokenizer in tokenizer.json",
    ),
    "another decoder": (
        changed("tokenizer.json", lambda c: c.update(decoder={"type": "WordPiece"})),
        "the base model's decoder in tokenizer.json",
    ),
    "a special token that is a word now": (
        changed("tokenizer.json", lambda c: c["added_tokens"][1].update(special=False)),
        r"flags of the added token '<\|im_start\|>', \['special'\]; found \[\]",
    ),
    "a trained template inside JSON": (
        lambda huggingface: (
            drop("chat_template.jinja")(huggingface),
            change_json(huggingface / "tokenizer_config.json", lambda c: c.update(chat_template="<|im_start|>trained")),
        ),
        r"the base model's chat template; found another one \(19 characters, ",
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
    "an older vocabulary of another model": (
        lambda huggingface: write_json(huggingface / "vocab.json", {"a": 6, "b": 8}),
        r"vocab.json to say what tokenizer.json says; found 'b' as 8, there as 7 \(1 differ\)",
    ),
    "older added tokens of another model": (
        lambda huggingface: write_json(huggingface / "added_tokens.json", {"<|im_end|>": 99}),
        r"added_tokens.json to say what tokenizer.json says; found '<\|im_end\|>' as 99, there as 2",
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
    assert len(set(messages)) == len(messages) == 30


def test_without_a_base_the_record_says_what_was_not_proved(folder: Path, checkpoint: Checkpoint) -> None:
    record = complete(folder, replace(checkpoint, run_dir=None))
    assert record["compared_with_base"] is False
    assert "--base was not given" in str(record["unproved"])


def test_an_adapter_is_held_against_the_configs_vocabulary(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    assert complete(folder, checkpoint)["vocabulary"] == 8
