"""What stands beside the weights: the base model's tokenizer, processor, chat template and generation config.

Training changes none of them, so the base model's files are copied as they are. The checkpoint's are held against them
in the form in which one release of transformers saves both.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix.files import mapping_inside, open_inside, read_inside
from medix_verl.export.checkpoint import BaseModel, Checkpoint

COPIED: Final = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|processor_config"
    r"|preprocessor_config|video_preprocessor_config|generation_config)\.json|merges\.txt|chat_template\.jinja"
)
"""All that is copied: data only. A folder's Python files never are."""
_IGNORED: Final = re.compile(
    "name_or_path|padding|truncation|padding_side|truncation_side|is_local|local_files_only|transformers_version"
    "|processor_class|_from_model_config"
).fullmatch
"""Settings of the process that saved, or of one call; none changes a token, a pixel or a turn's end."""
_RESTORE: Final = "Restore the base model's files in the checkpoint's huggingface/ folder, or name the right --base."


def complete_side_files(folder: Path, checkpoint: Checkpoint, base: BaseModel) -> dict[str, Any]:
    """Copy the side files into `folder` and hold the checkpoint's against them; return what was found."""
    ours, source = checkpoint.side_files, base.folder or checkpoint.side_files
    sees_images = "vision_config" in read_inside(ours, "config.json")
    # A snapshot of the hub's cache is links into the blobs beside it.
    root = source.parent.parent if source.parent.name == "snapshots" else source
    copied = _data_files(source, root)
    own = _data_files(ours, ours)
    for name in copied:
        shutil.copyfile(source / name, folder / name)
    processor = load_processor(folder, sees_images)
    _refuse_unfit(folder, processor, read_inside(ours, "config.json"), sees_images)
    record: dict[str, Any] = {"from": "base" if base.folder else "checkpoint", "copied": copied}
    if base.folder is None:
        why = f"{base.shown or 'it is not known, and'} is not on this machine; name its folder with --base"
        return record | {"unproved": f"that the side files are the base model's: {why}"}
    if "tokenizer_config.json" not in own:
        return record | {"unproved": "that training kept the tokenizer: the checkpoint has none"}
    full = sees_images and not {"processor_config.json", "preprocessor_config.json"}.isdisjoint(own)
    if other := _difference(_saved_again(ours, full), _saved_again(folder, full)):
        raise ExportError(f"The checkpoint's processor is not the base model's: {other}.", _RESTORE)
    of_ours, of_base = (mapping_inside(place, "generation_config.json") for place in (ours, folder))
    if other := _difference(of_ours, of_base):
        # Merging tools have written defaults over this file, and generation then ran past the end of a turn.
        record["generation_config"] = f"the base model's; the checkpoint's is another: {other}"
    return record


def _data_files(folder: Path, root: Path) -> list[str]:
    """Return the names of a folder's side files; refuse links that lead out of `root`, and settings that name code."""
    names = sorted(path.name for path in folder.iterdir() if COPIED.fullmatch(path.name))
    for name in (*names, "config.json"):
        with open_inside(root, folder / name):
            pass
        if name.endswith("config.json") and '"auto_map"' in json.dumps(read_inside(root, folder / name)):
            found = f"{folder / name} asks for code of its own (auto_map), and no code of a folder is run."
            raise ExportError(found, "Use a model whose class transformers has.")
    return names


def load_processor(folder: Path, sees_images: bool) -> Any:
    """Return the processor of a folder, or the tokenizer of a text-only model."""
    from transformers import AutoProcessor, AutoTokenizer

    loader: Any = AutoProcessor if sees_images else AutoTokenizer
    try:
        return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Files of anyone's making may fail in any way.
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ExportError(f"transformers can not load the processor in {folder}: {reason}", _RESTORE) from error


def _refuse_unfit(folder: Path, processor: Any, config: dict[str, Any], sees_images: bool) -> None:
    fix = "Name the base model's folder with --base."
    if sees_images and not hasattr(processor, "image_processor"):
        raise ExportError("An image processor is missing beside a model that sees images.", fix)
    tokenizer = getattr(processor, "tokenizer", processor)
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size", config.get("vocab_size", 0))
    if (largest := max(tokenizer.get_vocab().values())) >= rows:
        raise ExportError(f"The tokenizer has ids up to {largest}, and the embedding {rows} rows.", fix)
    eos = mapping_inside(folder, "generation_config.json").get("eos_token_id")
    stops = eos if isinstance(eos, list) else [eos]
    ends = {tokenizer.eos_token, *(["<|im_end|>"] if "<|im_end|>" in str(processor.chat_template) else [])}
    for token in sorted(ends - {None}):
        if tokenizer.convert_tokens_to_ids(token) not in stops:
            raise ExportError(f"generation_config.json ends at {stops}, not at {token}: it would never stop.", fix)


def _saved_again(folder: Path, sees_images: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        load_processor(folder, sees_images).save_pretrained(place)
        texts = {path.name: path.read_text(encoding="utf-8") for path in Path(place).iterdir()}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


def _difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Return where two settings first differ, with both values, or None."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            # The trainer gives a tokenizer without a padding token one.
            compared = not _IGNORED(key) and (key != "pad_token" or theirs.get(key))
            if compared and (found := _difference(ours.get(key), theirs.get(key), f"{place}/{key}")):
                return found
        return None
    if place.endswith("eos_token_id") and isinstance(ours, list) and isinstance(theirs, list):
        ours, theirs = sorted(ours), sorted(theirs)
    return None if ours == theirs else f"{place[1:]} is {str(ours)[:80]!r}, the base model's {str(theirs)[:80]!r}"
