"""How a question is put: bare (the paper's protocol) or in the training template. Stated in every result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from evaluation.item import LETTERS, Item
from medix.prompts import ESCAPED_IMAGE_SLOT, IMAGE_SLOT, load_prompt, render_prompt
from medix.response import THINKING_CLOSE, parse_response

PromptStyle = Literal["bare", "training"]
PROMPT_STYLES: tuple[str, ...] = get_args(PromptStyle)


def question_text(item: Item) -> str:
    """Passage, question and options as one text."""
    question = question_text_of(item.question, item.choices)
    return f"{item.passage.strip()}\n\n{question}" if item.passage.strip() else question


def question_text_of(question: str, choices: Sequence[str]) -> str:
    """Question and lettered options."""
    if not choices:
        return question.strip()
    options = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return question.strip() + "\n\nChoices:\n" + "\n".join(options)


def render(item: Item, style: PromptStyle) -> str:
    """Prompt text of the user's one turn, with a slot for each image."""
    text = question_text(item)
    if style == "training":
        return render_prompt(load_prompt(), text, len(item.images))
    return IMAGE_SLOT * len(item.images) + text.replace(IMAGE_SLOT, ESCAPED_IMAGE_SLOT)


def content_parts(prompt: str) -> list[dict[str, Any]]:
    """`{"type": "image"}` and `{"type": "text", "text": ...}` parts in the order of the prompt, no empty text."""
    pieces = prompt.split(IMAGE_SLOT)
    parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}]
    for piece in pieces[1:]:
        parts += [{"type": "image"}, {"type": "text", "text": piece}]
    return [part for part in parts if part.get("text") != ""]


def read_response(response: str, style: PromptStyle) -> tuple[str | None, str, tuple[str, ...]]:
    """Answer, reasoning and problems of a response.

    With the training template the answer is what the project's parser takes beyond doubt, None otherwise. A bare
    question asks for no form: the answer block where there is one, else all that follows the reasoning.
    """
    parsed = parse_response(response)
    if style == "training":
        return parsed.scorable_answer, parsed.thinking or "", parsed.problems
    if parsed.scorable_answer:
        return parsed.scorable_answer, parsed.thinking or "", ()
    thinking, answer = "", response
    for close in ("</think>", THINKING_CLOSE):
        if close in response:
            thinking, _, answer = response.rpartition(close)
            break
    return answer.strip() or None, thinking.strip(), ()
