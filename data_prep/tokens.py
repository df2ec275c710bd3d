"""Prompt lengths by arithmetic: image tokens from an image's size, text tokens from the tokenizer, no pixel decoded.

The image goes through two resizes before the model sees it, and both are followed here: veRL's
(`qwen_vl_utils.fetch_image`) and the image processor's own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError
from medix.prompts import IMAGE_SLOT

_FETCH_MERGE: Final = 2
_FETCH_TOKENS: Final = (4, 16384)
"""Bounds in merged patches that `qwen_vl_utils.fetch_image` applies where a row names none."""
_DEFAULT_PIXELS: Final = (56 * 56, 28 * 28 * 1280)
"""Bounds of `Qwen2VLImageProcessor` where its configuration file names none."""
_SLOT: Final = re.compile(f"({re.escape(IMAGE_SLOT)})")

_MAX_KNOWN_PIECES: Final = 20_000

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class VisionGeometry:
    """How an image processor of the Qwen-VL family cuts an image into tokens."""

    patch_size: int
    """14 for Qwen2.5-VL, 16 for Qwen3-VL."""
    merge_size: int
    """Patches along one side of a token, 2 for both."""
    min_pixels: int
    max_pixels: int

    @property
    def factor(self) -> int:
        """Side of one token in pixels: 28 for Qwen2.5-VL, 32 for Qwen3-VL."""
        return self.patch_size * self.merge_size

    def tokens(self, size: Size) -> int:
        """Image tokens of one image."""
        fetch = self.patch_size * _FETCH_MERGE
        low, high = (bound * fetch * fetch for bound in _FETCH_TOKENS)
        fetched = _resize(size, fetch, low, high)
        width, height = _resize(fetched, self.factor, self.min_pixels, self.max_pixels)
        return (width // self.factor) * (height // self.factor)


def _resize(size: Size, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """Nearest multiples of `factor`; outside the bounds on the area, scaled and rounded towards the inside."""
    width, height = size
    snapped = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    area = snapped[0] * snapped[1]
    if area > max_pixels:
        shrink = math.sqrt((width * height) / max_pixels)
        # Qwen divides the side by the ratio before the factor: any other order rounds differently.
        return max(factor, math.floor(width / shrink / factor) * factor), max(
            factor, math.floor(height / shrink / factor) * factor
        )
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return snapped


def read_geometry(model: Path) -> VisionGeometry:
    """Geometry out of a model folder's image processor configuration."""
    config = _image_processor_config(model)
    size = config.get("size") or {}
    low = config.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or _DEFAULT_PIXELS[0]
    high = config.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or _DEFAULT_PIXELS[1]
    return VisionGeometry(int(config.get("patch_size", 14)), int(config.get("merge_size", 2)), int(low), int(high))


def _image_processor_config(model: Path) -> dict[str, Any]:
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = model / name
        if path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
            config = config if key is None else config.get(key)
            if isinstance(config, dict) and "patch_size" in config:
                return config
    raise ConfigError(
        "preprocessor_config.json or processor_config.json with a patch_size",
        f"neither in {model}",
        "name the folder of a Qwen2.5-VL or Qwen3-VL model",
    )


class TokenCounter:
    """Counts the tokens of prompts as veRL's rollout will build them."""

    def __init__(self, model: Path) -> None:
        from tokenizers import Tokenizer

        path = model / "tokenizer.json"
        if not path.is_file():
            raise ConfigError("tokenizer.json", f"none in {model}", "save the tokenizer in its fast form")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._control = _splitter(self._tokenizer)
        self._lengths: dict[str, int] = {}
        self._render = load_chat_template(model)
        self.geometry = read_geometry(model)
        self._image_token = _image_token(model)

    def count(self, messages: Sequence[Sequence[dict[str, Any]]], sizes: Sequence[Sequence[Size]]) -> list[int]:
        """Prompt length in tokens of each row.

        Args:
            messages: per row the chat messages, with `<image>` slots in the text.
            sizes: per row the size of each image.
        """
        texts = [self._render([_with_parts(m, bool(s)) for m in row]) for row, s in zip(messages, sizes, strict=True)]
        for text, row_sizes in zip(texts, sizes, strict=True):
            if text.count(self._image_token) != len(row_sizes):
                raise ConfigError(
                    f"the chat template to write one {self._image_token} per image",
                    f"{text.count(self._image_token)} for {len(row_sizes)} images",
                    "use the chat template of a vision-language model",
                )
        # The template writes one placeholder an image, which the processor replaces by the image's tokens.
        return [
            length + sum(self.geometry.tokens(size) - 1 for size in row_sizes)
            for length, row_sizes in zip(self._text_lengths(texts), sizes, strict=True)
        ]

    def _text_lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text.

        A tokenizer cuts a text at its control tokens before anything else, so the pieces between them are counted on
        their own, and those that every row has (the prompt's wording) once.
        """
        pieces = [[piece for piece in self._control.split(text) if piece] for text in texts]
        new = sorted({piece for row in pieces for piece in row if piece not in self._lengths})
        if len(self._lengths) > _MAX_KNOWN_PIECES:
            self._lengths.clear()
            new = sorted({piece for row in pieces for piece in row})
        encoded = self._tokenizer.encode_batch(new, add_special_tokens=False)
        self._lengths.update((piece, len(one.ids)) for piece, one in zip(new, encoded, strict=True))
        return [sum(self._lengths[piece] for piece in row) for row in pieces]


def _splitter(tokenizer: Any) -> re.Pattern[str]:
    """Matches, and in a split keeps, the control tokens that take no white space from beside them."""
    tokens = tokenizer.get_added_tokens_decoder().values()
    plain = [t.content for t in tokens if t.special and not (t.lstrip or t.rstrip or t.single_word or t.normalized)]
    alternatives = "|".join(re.escape(content) for content in sorted(plain, key=len, reverse=True))
    return re.compile(f"({alternatives})" if alternatives else "(?!)")


def _with_parts(message: dict[str, Any], has_images: bool) -> dict[str, Any]:
    """The message as veRL hands it to the template: a list of parts, or plain text where the row has no image."""
    if not has_images:
        return message
    parts = [
        {"type": "image"} if piece == IMAGE_SLOT else {"type": "text", "text": piece}
        for piece in _SLOT.split(message["content"])
        if piece
    ]
    return {**message, "content": parts}


def _image_token(model: Path) -> str:
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return str(config.get("image_token") or "<|image_pad|>")


def load_chat_template(model: Path) -> Callable[[list[dict[str, Any]]], str]:
    """A function from messages to the prompt's text. Sandboxed: a template is foreign code."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise ConfigError("messages that the chat template accepts", message, "use another prompt file or model")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    template = environment.from_string(_template_text(model))
    special = _special_tokens(model)
    return lambda messages: template.render(messages=messages, add_generation_prompt=True, **special)


def _template_text(model: Path) -> str:
    if (path := model / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (path := model / name).is_file():
            text = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            if isinstance(text, str):
                return text
    raise ConfigError("a chat template", f"none in {model}", "add chat_template.jinja to the model's folder")


def _special_tokens(model: Path) -> dict[str, str]:
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tokens = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    values = {k: v.get("content") if isinstance(v, dict) else v for k, v in tokens.items()}
    return {k: v for k, v in values.items() if isinstance(v, str)}
