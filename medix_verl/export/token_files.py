"""A folder's tokenizer and chat template, read as data: no tokenizer is built."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.json_files import read_json, read_json_if_there

NAMED: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
FLAGS: Final = ("special", "normalized", "lstrip", "rstrip", "single_word")
_OFFSETS: Final = frozenset({"trim_offsets"})
STEPS: Final = {
    "normalizer": _OFFSETS,
    "pre_tokenizer": _OFFSETS,
    "decoder": _OFFSETS | {"add_prefix_space", "use_regex"},
}
"""Step of tokenizer.json -> its settings that change no token: transformers 5 writes them other than Qwen does."""
TEMPLATE_HOLDERS: Final = ("chat_template.json", "tokenizer_config.json")
_MARK: Final = re.compile(r"<\|[a-z_]+\|>")
"""How the Qwen families write their special tokens."""


@dataclass(frozen=True)
class TokenFiles:
    """`ids`: token -> id, with the `added` ones. `named`: eos_token and its like -> text. `template`: of the chat.

    `flags`: added token -> which of its flags are set. `steps`: normalizer, pre_tokenizer and decoder, as far as they
    decide which tokens a text becomes.
    """

    folder: Path
    ids: Mapping[str, int]
    added: frozenset[int]
    flags: Mapping[str, Sequence[str]]
    steps: Mapping[str, Any]
    merges: tuple[str, ...]
    named: Mapping[str, str]
    template: str

    @classmethod
    def read(cls, folder: Path) -> TokenFiles:
        """The tokenizer in a folder.

        Raises:
            ExportError: there is none, it has no chat template, or a file is damaged.
        """
        if not (folder / "tokenizer.json").is_file():
            raise ExportError(
                "a tokenizer.json beside the weights",
                f"none in {folder}",
                "name the base model's folder: --base FOLDER (a tokenizer of vocab.json and merges.txt alone has to be "
                "saved once by transformers)",
            )
        tokenizer = read_json(folder / "tokenizer.json")
        model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(vocabulary, dict):
            raise ExportError("a vocabulary in tokenizer.json", "none", f"look at {folder / 'tokenizer.json'}")
        config = read_json_if_there(folder, "tokenizer_config.json")
        extra = {str(token["content"]): int(token["id"]) for token in added or []}
        return cls(
            folder,
            {**vocabulary, **extra},
            frozenset(extra.values()),
            {str(token["content"]): [flag for flag in FLAGS if token.get(flag)] for token in added or []},
            {name: _deciding(tokenizer.get(name), inert) for name, inert in STEPS.items()},
            tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []),
            {name: text for name in NAMED if (text := _text(config.get(name)))},
            _template(folder),
        )

    @property
    def size(self) -> int:
        """One more than the greatest id."""
        return max(self.ids.values()) + 1

    @property
    def special_in_template(self) -> set[str]:
        return set(_MARK.findall(self.template))

    def template_digest(self) -> str:
        return hashlib.sha256(self.template.encode()).hexdigest()

    def refuse_unless_they_fit(self, rows: int, config: Mapping[str, Any]) -> None:
        """The vocabulary against the embedding, and the config's image tokens against the vocabulary."""
        if self.size > rows:
            raise ExportError(
                f"token ids below {rows}, the rows of the embedding",
                f"ids up to {self.size - 1} in the tokenizer: it is another model's",
                "put the tokenizer that the model was trained with into the checkpoint's huggingface/ folder",
            )
        by_id = {number: token for token, number in self.ids.items()}
        for key in ("image_token_id", "vision_start_token_id", "vision_end_token_id"):
            if isinstance(config.get(key), int) and config[key] not in self.added:
                raise ExportError(
                    f"the special token that config.json calls {key}, {config[key]}",
                    f"{by_id.get(config[key])!r} in the tokenizer: it is another model's",
                    "put the tokenizer that the model was trained with into the checkpoint's huggingface/ folder",
                )
        for name in ("vocab.json", "added_tokens.json"):
            older = read_json_if_there(self.folder, name)
            if other := sorted(token for token, number in older.items() if self.ids.get(token) != number):
                raise ExportError(
                    f"{name} to say what tokenizer.json says",
                    f"{other[0][:40]!r} as {older[other[0]]}, there as {self.ids.get(other[0])} ({len(other)} differ)",
                    f"remove {name} from the checkpoint's huggingface/ folder, or restore the base model's",
                )
        if unknown := sorted(token for token in self.special_in_template if token not in self.ids):
            raise ExportError(
                "every special token of the chat template in the tokenizer",
                f"{', '.join(unknown)} missing",
                "tokenizer and chat template are of two models: restore the base model's",
            )


def refuse_other_tokens(ours: TokenFiles, base: TokenFiles) -> None:
    """Hold a tokenizer and its chat template against the base model's.

    Raises:
        ExportError: vocabulary, merges, a step of the tokenizer, a special token or the chat template differs.
    """
    restore = f"restore the base model's file in {ours.folder.name}'s checkpoint, or name the right --base"
    other = [token for token in {*ours.ids, *base.ids} if ours.ids.get(token) != base.ids.get(token)]
    if other:
        example = min(other)
        raise ExportError(
            f"the base model's vocabulary ({len(base.ids)} tokens)",
            f"{len(ours.ids)} tokens, {len(other)} of them other: {example[:40]!r} is {ours.ids.get(example)}, "
            f"was {base.ids.get(example)}",
            restore,
        )
    if ours.merges != base.merges:
        raise ExportError("the base model's merges in tokenizer.json", "other ones", restore)
    for name, step in base.steps.items():
        if ours.steps[name] != step:
            found = json.dumps(ours.steps[name])[:200]
            raise ExportError(f"the base model's {name} in tokenizer.json, {json.dumps(step)[:200]}", found, restore)
    for token, flags in base.flags.items():
        if ours.flags.get(token) != flags:
            found = str(ours.flags.get(token))
            raise ExportError(f"the base model's flags of the added token {token!r}, {flags}", found, restore)
    for name, text in base.named.items():
        # The trainer gives a tokenizer without a padding token one; it takes none away.
        if ours.named.get(name) != text:
            raise ExportError(f"the base model's {name}, {text!r}", repr(ours.named.get(name)), restore)
    if ours.template.strip() != base.template.strip():
        raise ExportError(
            "the base model's chat template",
            f"another one ({len(ours.template)} characters, the base model's has {len(base.template)})",
            "a template changed on purpose belongs into the folder given as --base; otherwise restore it",
        )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _deciding(value: Any, inert: frozenset[str]) -> Any:
    """A step without the settings that change no token."""
    if isinstance(value, dict):
        return {key: _deciding(inner, inert) for key, inner in value.items() if key not in inert}
    return [_deciding(inner, inert) for inner in value] if isinstance(value, list) else value


def template_in(folder: Path) -> str:
    """The chat template of a folder, in any of the three places where transformers has put it; empty where none is."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    values = [read_json_if_there(folder, name).get("chat_template") for name in TEMPLATE_HOLDERS]
    return next((value for value in values if isinstance(value, str) and value), "")


def _template(folder: Path) -> str:
    if template := template_in(folder):
        return template
    raise ExportError("a chat template", f"none in {folder}", "name the base model's folder: --base FOLDER")
