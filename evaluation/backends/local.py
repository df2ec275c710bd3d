"""Small models from a local folder, answered by transformers: greedy or sampled, in batches, padded on the left."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.prompting import content_parts
from medix.errors import ConfigError


class LocalBackend:
    """A Hugging Face folder on the CPU or a GPU. No code of the folder is run.

    Raises:
        ConfigError: the folder is missing, or holds no model.
    """

    def __init__(self, folder: Path, decoding: Decoding, batch_size: int = 16) -> None:
        check_folder(folder)
        self.folder, self.decoding, self.batch_size = folder, decoding, batch_size

    def identity(self) -> dict[str, Any]:
        return {"backend": "transformers", "model": self.folder.name, "fingerprint": folder_fingerprint(self.folder)}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        for _, alike in groupby(questions, key=lambda question: question.max_tokens):
            while batch := list(islice(alike, self.batch_size)):
                for answered in await asyncio.to_thread(self._answer_batch, batch):
                    yield answered

    async def aclose(self) -> None:
        self.__dict__.pop("_loaded", None)

    def _answer_batch(self, batch: list[Question]) -> list[Answered]:
        import torch
        from PIL import Image

        processor, model, sees_images = self._loaded
        if any(question.item.images for question in batch) and not sees_images:
            raise ConfigError(f"{self.folder} takes no images.", "Choose text tasks, e.g. --tasks llm.")
        start = time.monotonic()
        texts = [_chat_text(processor, question, sees_images) for question in batch]
        images = [Image.open(BytesIO(image)).convert("RGB") for question in batch for image in question.item.images]
        pictures = {"images": images or None} if sees_images else {}
        inputs = processor(text=texts, return_tensors="pt", padding=True, **pictures).to(model.device)
        tokenizer = getattr(processor, "tokenizer", processor)
        d = self.decoding
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if d.temperature > 0:
            how = {"do_sample": True, "temperature": d.temperature, "top_p": d.top_p, "top_k": 0}
        with torch.inference_mode():
            output = model.generate(
                **inputs, max_new_tokens=batch[0].max_tokens, pad_token_id=tokenizer.pad_token_id, **how
            )
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        latency_s = (time.monotonic() - start) / len(batch)
        stops = _stop_ids(model, tokenizer)
        answers = []
        for question, tokens, prompt_tokens in zip(batch, new, inputs["attention_mask"].sum(1).tolist(), strict=True):
            end = next((place for place, token in enumerate(tokens) if token in stops), None)
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens[:end])}
            text = str(tokenizer.decode(tokens[:end], skip_special_tokens=True))
            answers.append(Answered(question, text, "length" if end is None else "stop", usage, latency_s))
        return answers

    @cached_property
    def _loaded(self) -> tuple[Any, Any, bool]:
        """Processor (or tokenizer), model, and whether the model takes images."""
        import torch
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )
        from transformers.utils import logging as transformers_logging

        if not sys.stderr.isatty():
            transformers_logging.disable_progress_bar()
        folder = self.folder
        try:
            sees_images = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
            auto = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
            device = "cuda" if torch.cuda.is_available() else "cpu"
            model = auto.from_pretrained(folder, dtype="auto").to(device).eval()
            processor = (AutoProcessor if sees_images else AutoTokenizer).from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"transformers can not load {folder}: {error}", "Use --backend vllm, or export the model again."
            ) from error
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.decoding.seed is not None:
            torch.manual_seed(self.decoding.seed)
        return processor, model, sees_images


def check_folder(folder: Path) -> None:
    """Raise a ConfigError unless the folder holds a model; a checkpoint of a run has to be exported first."""
    if not (folder / "config.json").is_file():
        run = any(folder.glob("global_step_*")) or (folder / "checkpoints").is_dir() or (folder / "actor").is_dir()
        fix = f"Export it first: medix export {folder} --out my-model" if run else "Correct --model."
        raise ConfigError(f"There is no model (config.json) in {folder}.", fix)


def _chat_text(processor: Any, question: Question, sees_images: bool) -> str:
    parts = content_parts(question.prompt)
    content = parts if sees_images else "".join(part["text"] for part in parts)
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    stops = model.generation_config.eos_token_id
    listed = stops if isinstance(stops, list) else [stops]
    return {token for token in (*listed, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None}


def folder_fingerprint(folder: Path) -> str:
    """Return a hash that changes with the weights: a model that was trained on keeps none of its old answers.

    Names, sizes, and the first and last megabyte of each weight, tokenizer and configuration file are hashed.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".jinja", ".safetensors", ".bin", ".txt")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
