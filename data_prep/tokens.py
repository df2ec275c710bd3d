"""Prompt lengths by arithmetic: image tokens from an image's size, text tokens from the tokenizer, no pixel decoded.

An image is resized twice before the model sees it, by `qwen_vl_utils.fetch_image` and by the image processor; both are
followed here. The formula is theirs (a test holds the two together): importing them takes 20 seconds of CPU and 570 MiB
in each worker, which counting a small set would not win back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError
from medix.files import read_mapping
from medix.prompts import IMAGE_SLOT

PATCHES: Final = (14, 16)
"""Pixels along a patch: Qwen2.5-VL, Qwen3-VL."""
MAX_RATIO: Final = 200.0
"""Longer images are refused by both resizes."""
_FETCH_TOKENS: Final = (4, 16384)
"""Bounds in merged patches that `fetch_image` applies where a row names none."""
_DEFAULT_PIXELS: Final = (56 * 56, 28 * 28 * 1280)
"""Bounds of `Qwen2VLImageProcessor` where its configuration file names none."""

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class VisionGeometry:
    """How an image processor of the Qwen-VL family cuts an image into tokens."""

    patch_size: int
    merge_size: int
    """Patches along one side of a token, 2 for both families."""
    min_pixels: int
    max_pixels: int

    @property
    def factor(self) -> int:
        """Side of one token in pixels: 28 for Qwen2.5-VL, 32 for Qwen3-VL."""
        return self.patch_size * self.merge_size

    def tokens(self, size: Size) -> int:
        """Return the image tokens of one image."""
        width, height = _resize(fetched(size, self.patch_size), self.factor, self.min_pixels, self.max_pixels)
        return (width // self.factor) * (height // self.factor)


def fetched(size: Size, patch_size: int) -> Size:
    """Return the size that `qwen_vl_utils.fetch_image` gives an image."""
    factor = 2 * patch_size
    return _resize(size, factor, *(bound * factor * factor for bound in _FETCH_TOKENS))


def _resize(size: Size, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """Return the nearest multiples of `factor`; outside the bounds on the area, scaled and rounded to the inside."""
    width, height = size
    snapped = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    if snapped[0] * snapped[1] > max_pixels:
        shrink = math.sqrt((width * height) / max_pixels)
        # Qwen divides the side by the ratio before the factor: any other order rounds differently.
        wide, high = (max(factor, math.floor(side / shrink / factor) * factor) for side in size)
        return wide, high
    if snapped[0] * snapped[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return snapped


def read_geometry(model: Path) -> VisionGeometry:
    """Return the geometry that a model folder's image processor configuration states.

    Raises:
        ConfigError: the folder holds none with a patch size.
    """
    config = _mapping(model / "preprocessor_config.json") or _mapping(model / "processor_config.json")
    config = config.get("image_processor") or config
    if "patch_size" not in config:
        raise ConfigError(
            f"{model} has no preprocessor_config.json or processor_config.json with a patch_size.",
            "Name the folder of a Qwen2.5-VL or Qwen3-VL model.",
        )
    size = config.get("size") or {}
    low = config.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or _DEFAULT_PIXELS[0]
    high = config.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or _DEFAULT_PIXELS[1]
    return VisionGeometry(int(config["patch_size"]), int(config.get("merge_size", 2)), int(low), int(high))


class TokenCounter:
    """Count the tokens of prompts as veRL's rollout will build them."""

    def __init__(self, model: Path) -> None:
        from tokenizers import Tokenizer

        path = model / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(f"{model} has no tokenizer.json.", "Save the tokenizer in its fast form.")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._render = _chat_template(model)
        self.geometry = read_geometry(model)
        self._image_token = str(_mapping(model / "tokenizer_config.json").get("image_token") or "<|image_pad|>")

    def count(self, messages: Sequence[Sequence[dict[str, Any]]], sizes: Sequence[Sequence[Size]]) -> list[int]:
        """Return the prompt length in tokens of each row.

        Args:
            messages: per row the chat messages, with `<image>` slots in the text.
            sizes: per row the size of each image.
        """
        texts = [self._render([_with_parts(m, bool(s)) for m in row]) for row, s in zip(messages, sizes, strict=True)]
        for text, row_sizes in zip(texts, sizes, strict=True):
            if text.count(self._image_token) != len(row_sizes):
                raise ConfigError(
                    f"The chat template writes {self._image_token} {text.count(self._image_token)} times for "
                    f"{len(row_sizes)} images.",
                    "Use the chat template of a vision-language model.",
                )
        lengths = [len(one.ids) for one in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        # The template writes one placeholder an image, which the processor replaces by the image's tokens.
        return [
            length + sum(self.geometry.tokens(size) - 1 for size in row_sizes)
            for length, row_sizes in zip(lengths, sizes, strict=True)
        ]


def _with_parts(message: dict[str, Any], has_images: bool) -> dict[str, Any]:
    """Return the message as veRL hands it to the template: a list of parts, or plain text if the row has no image."""
    if not has_images:
        return message
    texts = message["content"].split(IMAGE_SLOT)
    parts: list[dict[str, str]] = [{"type": "text", "text": texts[0]}]
    for text in texts[1:]:
        parts += [{"type": "image"}, {"type": "text", "text": text}]
    return {**message, "content": [part for part in parts if part.get("text") != ""]}


def _mapping(path: Path) -> dict[str, Any]:
    return read_mapping(path) if path.is_file() else {}


def _chat_template(model: Path) -> Callable[[list[dict[str, Any]]], str]:
    """Return a function from messages to the prompt's text. Sandboxed, since a template is foreign code."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise ConfigError(f"The chat template refuses the messages: {message}", "Use another prompt file or model.")

    config = _mapping(model / "tokenizer_config.json")
    path = model / "chat_template.jinja"
    text = path.read_text("utf-8") if path.is_file() else _mapping(model / "chat_template.json").get("chat_template")
    text = text or config.get("chat_template")
    if not isinstance(text, str):
        raise ConfigError(f"{model} has no chat template.", "Add chat_template.jinja to the model's folder.")
    loops = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=loops)
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    stated = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    special = {name: value.get("content") if isinstance(value, dict) else value for name, value in stated.items()}
    template = environment.from_string(text)
    return lambda messages: template.render(
        messages=messages, add_generation_prompt=True, **{k: v for k, v in special.items() if isinstance(v, str)}
    )
