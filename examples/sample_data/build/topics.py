"""What is asked about pictures: the wordings of every topic, and how many rows of it the set takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """A kind of question with its wordings and its quota."""

    kind: str
    wordings: tuple[str, ...]
    per_answer: dict[str, int]
    """Split -> most rows taken for one answer, which keeps the answers of a wording in balance."""


TOPICS: dict[str, Topic] = {
    "modality": Topic(
        "modality",
        (
            "What imaging modality is shown?",
            "How was this picture made?",
        ),
        {"train": 22, "test": 3},
    ),
    "region": Topic(
        "region",
        ("Which body region or organ is shown?", "What part of the body is this?"),
        {"train": 18, "test": 2},
    ),
    "window": Topic(
        "stain",
        ("Which CT window is used?", "In which window is this CT slice displayed?"),
        {"train": 14, "test": 3},
    ),
    "sequence": Topic(
        "stain",
        ("Which kind of MRI picture is this?", "What type of magnetic resonance picture is shown?"),
        {"train": 16, "test": 2},
    ),
    "stain": Topic(
        "stain",
        ("Which staining or contrast is used?", "How was this specimen made visible?"),
        {"train": 18, "test": 3},
    ),
    "technique": Topic(
        "stain",
        ("Which ultrasound technique is this?", "What kind of ultrasound picture is shown?"),
        {"train": 16, "test": 2},
    ),
    "spine edge": Topic(
        "side",
        ("Towards which edge of the picture does the spine lie?", "At which edge of the picture is the spine?"),
        {"train": 24, "test": 2},
    ),
    "liver half": Topic(
        "side",
        ("In which half of the picture does the liver lie?", "On which side of the picture is the liver?"),
        {"train": 24, "test": 2},
    ),
    "breast side": Topic(
        "side",
        ("Which breast is shown?", "Is this the left or the right breast?"),
        {"train": 24, "test": 2},
    ),
    "main organ": Topic(
        "structure",
        ("Which large organ lies in this half of the body?", "Which organ takes up most of this half slice?"),
        {"train": 12, "test": 2},
    ),
    "largest organ": Topic(
        "larger",
        ("Which organ covers the largest area?", "Which organ is the largest in this slice?"),
        {"train": 14, "test": 3},
    ),
    "liver or lung": Topic(
        "larger",
        ("Which is larger in this slice, the liver or the lung?", "Is the liver or the lung larger here?"),
        {"train": 12, "test": 2},
    ),
    "fundus finding": Topic(
        "finding",
        ("What does this photograph of the retina show?", "What is the finding in this fundus picture?"),
        {"train": 12, "test": 3},
    ),
}
