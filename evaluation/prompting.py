"""How a question is put: bare (the paper's protocol) or in the training template. Stated in every result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from evaluation.item import Item
from medix.prompts import ESCAPED_IMAGE_SLOT, IMAGE_SLOT, TRAINING_PROMPT, load_prompt, render_prompt
from medix.response import THINKING_CLOSE, parse_response

MODEL_PROMPT = "training_prompt.txt"
"""The prompt in the folder of an exported model."""
PromptStyle = Literal["bare", "training"]


def render(item: Item, template: str | None) -> str:
    """Return the text of the user's one turn, with a slot for each image.

    Args:
        template: text of a training prompt (see `medix.prompts`); None puts the bare question.
    """
    if template is not None:
        return render_prompt(template, item.whole_question, len(item.images))
    return IMAGE_SLOT * len(item.images) + item.whole_question.replace(IMAGE_SLOT, ESCAPED_IMAGE_SLOT)


def find_template(named: str, model: str) -> str | None:
    """Return the text of the training prompt that `--prompt` names, or None for the bare question.

    Args:
        named: `bare`, `training` (the prompt in the model's folder, else the project's own), or a file.
        model: folder or name of the model.
    """
    if named == "bare":
        return None
    own = Path(model) / MODEL_PROMPT
    return load_prompt(Path(named) if named != "training" else own if own.is_file() else TRAINING_PROMPT)


def content_parts(prompt: str) -> list[dict[str, Any]]:
    """Return `{"type": "image"}` and `{"type": "text", "text": ...}` parts in the order of the prompt."""
    pieces = prompt.split(IMAGE_SLOT)
    parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}]
    for piece in pieces[1:]:
        parts += [{"type": "image"}, {"type": "text", "text": piece}]
    return [part for part in parts if part.get("text") != ""]


def read_response(response: str, style: PromptStyle) -> tuple[str | None, str, tuple[str, ...]]:
    """Return answer, reasoning and problems of a response.

    With the training template the answer is what the project's parser takes beyond doubt, None otherwise. A bare
    question asks for no form: the answer block where there is one, else all that follows the reasoning. Reasoning that
    never closes (the response was cut off) has no answer.
    """
    parsed = parse_response(response)
    if style == "training":
        return parsed.scorable_answer, parsed.thinking or "", parsed.problems
    if parsed.scorable_answer:
        return parsed.scorable_answer, parsed.thinking or "", ()
    for opening, closing in (("<think>", "</think>"), ("<thinking>", THINKING_CLOSE)):
        thinking, closed, answer = response.rpartition(closing)
        if closed:
            return answer.strip() or None, thinking.strip(), ()
        if opening in response:
            return None, response.partition(opening)[2].strip(), ("unclosed_thinking",)
    return response.strip() or None, "", ()
