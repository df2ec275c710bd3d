"""The fixed questions that an exported model is asked, and the fixed answers whose log-probabilities are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from evaluation.prompting import content_parts
from medix.files import shipped
from medix.prompts import load_prompt, render_prompt
from medix.response import format_response

SAMPLE_IMAGE: Final = shipped("examples/sample_data") / "images" / "test_x_ray_000.jpg"
DRAWN_SIZE: Final = (112, 112)


@dataclass(frozen=True)
class Probe:
    """One question, and an answer in the trained form that every policy gives some probability to."""

    name: str
    question: str
    sees_image: bool
    response: str


TEXT: Final = Probe(
    "text", "What organ pumps blood around?", False, format_response(None, "The heart pumps blood.", "heart")
)
IMAGE: Final = Probe(
    "image", "What imaging modality is shown?", True, format_response("X_RAY", "I see an X-ray.", "x-ray")
)


def probes_for(sees_images: bool) -> list[Probe]:
    return [TEXT, IMAGE] if sees_images else [TEXT]


def probe_image() -> tuple[Any, str]:
    """(RGB picture, where it is from): a committed X-ray, or a drawn disc where only the package is installed."""
    from PIL import Image, ImageDraw

    if SAMPLE_IMAGE.is_file():
        with Image.open(SAMPLE_IMAGE) as file:
            return file.convert("RGB"), f"examples/sample_data/images/{SAMPLE_IMAGE.name}"
    picture = Image.new("RGB", DRAWN_SIZE, "black")
    ImageDraw.Draw(picture).ellipse((20, 20, 92, 92), fill="grey")
    return picture, "drawn: a grey disc"


def prompt_text(processor: Any, probe: Probe, sees_images: bool) -> str:
    """The prompt through the folder's own chat template, as training wrote it."""
    parts = content_parts(render_prompt(load_prompt(), probe.question, int(probe.sees_image)))
    content = parts if sees_images else "".join(part["text"] for part in parts)
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def model_inputs(processor: Any, probe: Probe, sees_images: bool, response: str = "") -> Any:
    """A batch of one for the model: the prompt, and `response` after it."""
    text = prompt_text(processor, probe, sees_images) + response
    if not sees_images:
        return processor([text], return_tensors="pt")
    images = [probe_image()[0]] if probe.sees_image else None
    return processor(text=[text], images=images, return_tensors="pt")
