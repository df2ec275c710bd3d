"""Small models from a local folder, answered by transformers: greedy or sampled, in batches, padded on the left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.prompting import content_parts
from medix.errors import ConfigError


class LocalBackend:
    """A Hugging Face folder on the CPU or a GPU. No code of the folder is run.

    Raises:
        ConfigError: no such folder, or nothing in it that transformers knows.
    """

    def __init__(self, folder: Path, decoding: Decoding, batch_size: int = 16) -> None:
        if not (folder / "config.json").is_file():
            raise ConfigError("a model folder with a config.json", f"none at {folder}", "correct --model")
        self.folder, self.decoding, self.batch_size = folder, decoding, batch_size
        self._loaded: tuple[Any, Any, bool] | None = None

    def identity(self) -> dict[str, Any]:
        return {"backend": "transformers", "model": self.folder.name, "fingerprint": folder_fingerprint(self.folder)}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        source = iter(questions)
        while batch := list(islice(source, self.batch_size)):
            for answered in await asyncio.to_thread(self._answer_batch, batch):
                yield answered

    async def aclose(self) -> None:
        self._loaded = None

    def _answer_batch(self, batch: list[Question]) -> list[Answered]:
        import torch

        processor, model, sees_images = self._load()
        start = time.monotonic()
        inputs = self._inputs(processor, batch, sees_images).to(model.device)
        tokenizer = getattr(processor, "tokenizer", processor)
        with torch.inference_mode():
            output = model.generate(**inputs, **self._generate_arguments(tokenizer))
        width = inputs["input_ids"].shape[1]
        latency_s = (time.monotonic() - start) / len(batch)
        stops = _stop_ids(model, tokenizer)
        return [
            self._answered(question, tokenizer, output[row, width:].tolist(), int(prompt_tokens), stops, latency_s)
            for row, (question, prompt_tokens) in enumerate(zip(batch, inputs["attention_mask"].sum(1), strict=True))
        ]

    def _answered(
        self,
        question: Question,
        tokenizer: Any,
        tokens: list[int],
        prompt_tokens: int,
        stops: set[int],
        latency_s: float,
    ) -> Answered:
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        kept = tokens if end is None else tokens[:end]
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(kept)}
        text = str(tokenizer.decode(kept, skip_special_tokens=True))
        return Answered(question, text, "length" if end is None else "stop", usage, latency_s)

    def _inputs(self, processor: Any, batch: list[Question], sees_images: bool) -> Any:
        texts = [_chat_text(processor, question, sees_images) for question in batch]
        images = [_decode(image) for question in batch for image in question.item.images]
        if not sees_images:
            return processor(texts, return_tensors="pt", padding=True)
        return processor(text=texts, images=images or None, return_tensors="pt", padding=True)

    def _generate_arguments(self, tokenizer: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {"max_new_tokens": self.decoding.max_tokens, "pad_token_id": tokenizer.pad_token_id}
        if self.decoding.temperature == 0:
            return arguments | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return arguments | {
            "do_sample": True,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "top_k": 0,
        }

    def _load(self) -> tuple[Any, Any, bool]:
        if self._loaded is None:
            self._loaded = _load_folder(self.folder)
            if self.decoding.seed is not None:
                import torch

                torch.manual_seed(self.decoding.seed)
        return self._loaded


def _load_folder(folder: Path) -> tuple[Any, Any, bool]:
    """Processor (or tokenizer), model, and whether the model takes images."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder)
    sees_images = hasattr(config, "vision_config")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        auto = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
        model = auto.from_pretrained(folder, dtype="auto").to(device).eval()
        processor = (AutoProcessor if sees_images else AutoTokenizer).from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            "a model folder that transformers can load", f"{folder}: {error}", "use --backend vllm, or re-export it"
        ) from error
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, model, sees_images


def _chat_text(processor: Any, question: Question, sees_images: bool) -> str:
    parts = content_parts(question.prompt)
    if not sees_images and question.item.images:
        raise ConfigError("a model that takes images", "a text-only one", "choose text tasks, e.g. --tasks llm")
    content = parts if sees_images else "".join(part["text"] for part in parts)
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _decode(image: bytes) -> Any:
    from PIL import Image

    return Image.open(BytesIO(image)).convert("RGB")


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    stops = model.generation_config.eos_token_id
    listed = stops if isinstance(stops, list) else [stops]
    return {token for token in (*listed, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None}


def folder_fingerprint(folder: Path) -> str:
    """Changes with the weights: a model that was trained on keeps none of its old answers.

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
