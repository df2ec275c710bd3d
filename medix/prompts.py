"""Prompt files: where they are, and how a question enters one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix.files import shipped
from medix.modality import MODALITIES

PROMPT_DIR: Final = shipped("recipes/medix") / "prompts"
TRAINING_PROMPT: Final = PROMPT_DIR / "training.txt"

IMAGE_SLOT: Final = "<image>"
"""veRL replaces each occurrence in a message by one image of the row."""
ESCAPED_IMAGE_SLOT: Final = "<\u200bimage>"
"""What a literal `<image>` in a question becomes, so that it can not be taken for a slot (zero-width space inside)."""

_SLOT = re.compile("<(image|video|audio)>")
"""All that veRL's dataset splits a message at: one that the row has nothing for stops the run in mid-epoch."""

_IMAGES_FIELD, _QUESTION_FIELD, _TAGS_FIELD = "{images}", "{question}", "{tags}"


def load_prompt(path: Path = TRAINING_PROMPT) -> str:
    """Return the text of a prompt file, with the tags of `medix.modality` in place of `{tags}`.

    Raises:
        ConfigError: the file is missing, or does not hold `{images}` and `{question}` once each.
    """
    if not path.is_file():
        raise ConfigError(f"There is no prompt file at {path}.", f"Name an existing file, e.g. {TRAINING_PROMPT}.")
    text = path.read_text(encoding="utf-8").strip()
    for field in (_IMAGES_FIELD, _QUESTION_FIELD):
        if text.count(field) != 1:
            raise ConfigError(f"The prompt {path} does not hold {field} exactly once.", f"Edit {path}.")
    return text.replace(_TAGS_FIELD, " ".join(f"<{tag}>" for tag in MODALITIES))


def render_prompt(template: str, question: str, num_images: int) -> str:
    """Fill a template in one pass: as many image slots as images, none for a text-only question."""
    head, tail = template.split(_QUESTION_FIELD)
    slots = IMAGE_SLOT * num_images + ("\n" if num_images else "")
    text = _SLOT.sub("<\u200b\\1>", question.strip())
    return head.replace(_IMAGES_FIELD, slots) + text + tail.replace(_IMAGES_FIELD, slots)
