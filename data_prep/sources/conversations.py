"""Conversations, as LLaVA's `conversations` or chat `messages`, where they hold one question and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from data_prep.records import Unfit
from data_prep.sources.fields import literal, present
from medix.prompts import IMAGE_SLOT

_COLUMNS: Final = ("conversations", "conversation", "messages")
_SPEAKERS: Final = {"human": "question", "user": "question", "gpt": "answer", "assistant": "answer"}
_IMAGES: Final = "images"
"""Column of the images that stand in the messages themselves."""


def conversation_in(sampled: Sequence[Mapping[str, Any]]) -> str:
    """Return the column that holds conversations, or an empty text.

    Example:
        >>> conversation_in([{"id": 1, "messages": [{"role": "user", "content": "Where?"}]}])
        'messages'
    """
    names = (name for row in sampled for name in _COLUMNS if name in row)
    return next((name for name in names if all(_turns(row.get(name)) for row in sampled)), "")


def _turns(value: Any) -> list[dict[str, Any]]:
    value = literal(value)
    are_turns = isinstance(value, list) and all(isinstance(turn, dict) for turn in value)
    return value if are_turns else []


def exchange(row: Mapping[str, Any], name: str) -> Mapping[str, Any] | Unfit:
    """Return a row with the question and the answer of its conversation as columns of these names."""
    said = [
        (str(turn.get("from") or turn.get("role")).lower(), turn.get("value") or turn.get("content"))
        for turn in _turns(row.get(name))
    ]
    asked = [(_SPEAKERS.get(who, who), text) for who, text in said if who != "system"]
    if [who for who, _ in asked] != ["question", "answer"]:
        return Unfit("bad_field", f"{name!r} holds {len(said)} turns, not one question and its answer")
    try:
        question, images = _parts(asked[0][1], name)
        answer, _ = _parts(asked[1][1], name)
    except Unfit as unfit:
        return unfit
    if IMAGE_SLOT in str(answer):
        return Unfit("bad_field", f"the answer in {name!r} holds an image")
    found = {"question": question, "answer": answer} | ({_IMAGES: images} if images else {})
    for column in found:
        if present(row.get(column)):
            return Unfit("bad_field", f"there is a column {column!r} beside {name!r}, and either may be meant")
    return {**{key: value for key, value in row.items() if key != name}, **found}


def _parts(content: Any, name: str) -> tuple[Any, list[Any]]:
    """Return the text of a message, a slot before it for each image, and the images that it carries.

    A part that is an image but names none stands for an image of the row.
    """
    if not isinstance(content, list):
        return content, []
    words: list[str] = []
    slots, images = 0, []
    for part in content:
        # Parquet gives every part the keys of all parts, empty where another has them.
        part = {key: value for key, value in part.items() if present(value)} if isinstance(part, dict) else {}
        kind = str(part.get("type") or next(iter(part), "nothing"))
        if kind == "text" and isinstance(part.get("text"), str):
            words.append(part["text"].strip())
        elif kind in ("image", "image_url"):
            slots += 1
            value = part.get("image") or part.get("image_url") or part.get("path") or part.get("url")
            if value := value.get("url") if isinstance(value, dict) and "url" in value else value:
                images.append(value)
        else:
            raise Unfit("bad_field", f"a message in {name!r} holds a part of type {kind[:40]!r}")
    return IMAGE_SLOT * slots + "\n".join(words), images
