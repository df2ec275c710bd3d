"""Loads an exported folder as its users will, and asks it one question as text and one with a picture, greedily."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from evaluation.prompting import content_parts
from medix.errors import ExportError
from medix.files import read_inside, shipped
from medix.prompts import render_prompt
from medix_verl.export.side_files import load_processor

QUESTIONS: Final = {"text": "What organ pumps blood around?", "image": "What imaging modality is shown?"}
SAMPLE_IMAGE: Final = shipped("examples/sample_data") / "images" / "test_x_ray_000.jpg"
NEAR_TIE: Final = 0.25
"""Difference of the two best logits."""


class Asker:
    """Puts the fixed questions to a folder's model in the training prompt, through the folder's own chat template."""

    def __init__(self, folder: Path, template: str) -> None:
        self.sees_images = "vision_config" in read_inside(folder, "config.json")
        self.processor, self._template = load_processor(folder, self.sees_images), template
        self.names = ["text", "image"] if self.sees_images else ["text"]

    def prompt(self, name: str) -> str:
        """Return the whole prompt of a question."""
        parts: Any = content_parts(render_prompt(self._template, QUESTIONS[name], int(name == "image")))
        content = parts if self.sees_images else "".join(part["text"] for part in parts)
        messages = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def inputs(self, name: str, response: str = "") -> Any:
        """Return a batch of one for the model: the prompt, and `response` after it."""
        text = [self.prompt(name) + response]
        if not self.sees_images:
            return self.processor(text, return_tensors="pt")
        return self.processor(text=text, images=[picture()] if name == "image" else None, return_tensors="pt")


def picture() -> Any:
    """Return an X-ray of the sample set."""
    from PIL import Image

    with Image.open(SAMPLE_IMAGE) as file:
        return file.convert("RGB")


def load_model(folder: Path, base: Path | None, dtype: str) -> Any:
    """Return the folder's model in evaluation mode; if `base` is given, the folder is an adapter on it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    source = base or folder
    sees_images = "vision_config" in read_inside(source, "config.json")
    kind: Any = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
    model, info = kind.from_pretrained(source, dtype=getattr(torch, dtype), output_loading_info=True)
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := info.get(name):
            found = f"{len(keys)} {name.replace('_', ' ')}, such as {min(map(str, keys))}"
            raise ExportError(f"transformers loads {folder} with {found}.", "Report this: it is a fault of the export.")
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    return model.eval()


def ask(folder: Path, base: Path | None, dtype: str, template: str, max_new_tokens: int) -> dict[str, Any]:
    """Return each question's greedy answer: text, tokens, and how near the second choice was at each token."""
    import torch

    asker, model = Asker(base or folder, template), load_model(folder, base, dtype)
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "max_new_tokens": max_new_tokens}
    found: dict[str, Any] = {}
    for name in asker.names:
        inputs = asker.inputs(name)
        with torch.no_grad():
            output = model.generate(**inputs, **greedy, return_dict_in_generate=True, output_scores=True)
        tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        tops = [torch.topk(scores[0].float(), 2) for scores in output.scores]
        answer = getattr(asker.processor, "tokenizer", asker.processor).decode(tokens, skip_special_tokens=True)
        found[name] = {
            "question": QUESTIONS[name],
            "answer": answer,
            "tokens": tokens,
            "margins": [float(top.values[0] - top.values[1]) for top in tops],
        }
        if not answer.strip():
            fix = "The policy says nothing at this step, or its template is another: try an earlier checkpoint."
            raise ExportError(f"The model answers the {name} question with nothing (tokens {tokens[:5]}).", fix)
    return found


def ask_vllm(folder: Path, template: str, max_new_tokens: int) -> dict[str, Any]:
    """Return vLLM's greedy tokens for the same questions."""
    import torch
    import vllm

    asker = Asker(folder, template)
    length = max(asker.inputs(name)["input_ids"].shape[1] for name in asker.names) + max_new_tokens + 64
    engine = vllm.LLM(
        model=str(folder),
        # Some processors advertise bfloat16 and then refuse the instruction.
        dtype="auto" if torch.cuda.is_available() else "float32",
        enforce_eager=True,
        max_model_len=length,
        max_num_batched_tokens=max(length, 2048),
        max_num_seqs=2,
        limit_mm_per_prompt={"image": 1} if asker.sees_images else {},
    )
    prompts: list[Any] = [
        {"prompt": asker.prompt(name)} | ({"multi_modal_data": {"image": picture()}} if name == "image" else {})
        for name in asker.names
    ]
    outputs = engine.generate(prompts, vllm.SamplingParams(temperature=0.0, max_tokens=max_new_tokens))
    tokens = {name: list(output.outputs[0].token_ids) for name, output in zip(asker.names, outputs, strict=True)}
    return {"version": vllm.__version__, "tokens": tokens}


def compare_tokens(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, int]:
    """Return how many tokens of each answer are the same in transformers and in vLLM; refuse others."""
    same = {}
    for name, found in theirs.items():
        tokens, margins = ours[name]["tokens"], ours[name]["margins"]
        pairs = enumerate(zip(tokens, found, strict=False))
        same[name] = at = next((i for i, (one, other) in pairs if one != other), min(len(tokens), len(found)))
        # Where two choices are nearly alike, another kernel or dtype may take the other, and go on from there.
        if found != tokens and not (at < len(margins) and margins[at] <= NEAR_TIE):
            fix = "Check vLLM's version against the project's pin: it loads these weights in another way."
            raise ExportError(f"vLLM answers the {name} question with {found}, transformers with {tokens}.", fix)
    return same
