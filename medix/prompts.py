"""Prompt files: where they are, and how a question enters one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix.files import shipped

PROMPT_DIR: Final = shipped("recipes/medix") / "prompts"
TRAINING_PROMPT: Final = PROMPT_DIR / "training.txt"

IMAGE_SLOT: Final = "<image>"
"""veRL replaces each occurrence in a message by one image of the row."""
ESCAPED_IMAGE_SLOT: Final = "<\u200bimage>"
"""What a literal `<image>` in a question becomes, so that it can not be taken for a slot (zero-width space inside)."""

_SLOT = re.compile("<(image|video|audio)>")
"""All that veRL's dataset splits a message at: one that the row has nothing for stops the run in mid-epoch."""

_IMAGES_FIELD, _QUESTION_FIELD = "{images}", "{question}"


def load_prompt(path: Path = TRAINING_PROMPT) -> str:
    """Text of a prompt file.

    Raises:
        ConfigError: the file is missing, or does not hold `{images}` and `{question}` once each.
    """
    if not path.is_file():
        raise ConfigError("a prompt file", f"none at {path}", f"name an existing file, e.g. {TRAINING_PROMPT}")
    text = path.read_text(encoding="utf-8").strip()
    for field in (_IMAGES_FIELD, _QUESTION_FIELD):
        if text.count(field) != 1:
            raise ConfigError(f"{field} exactly once in {path}", f"{text.count(field)} of it", f"edit {path}")
    return text


def render_prompt(template: str, question: str, num_images: int) -> str:
    """Fill a template in one pass: as many image slots as images, none for a text-only question."""
    head, tail = template.split(_QUESTION_FIELD)
    slots = IMAGE_SLOT * num_images + ("\n" if num_images else "")
    text = _SLOT.sub("<\u200b\\1>", question.strip())
    return head.replace(_IMAGES_FIELD, slots) + text + tail.replace(_IMAGES_FIELD, slots)
