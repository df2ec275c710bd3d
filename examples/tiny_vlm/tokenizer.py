"""A small byte-level BPE tokenizer, trained on the sample set's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from medix.modality import MODALITIES
from medix.response import ANSWER_CLOSE, ANSWER_OPEN, THINKING_CLOSE, THINKING_OPEN

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def structure_tokens(prompt_template: str) -> list[str]:
    """Return the fixed pieces of the training prompt and of a response, each of which becomes one token.

    The prompt's wording is the same in every row and the model is trained for this one prompt, so a token a piece
    loses nothing and makes a step several times shorter.
    """
    pieces = [piece.strip() for piece in re.split(r"\{images\}|\{question\}", prompt_template)]
    blocks = [THINKING_OPEN, THINKING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE]
    return [piece for piece in pieces if piece] + blocks + [f"<{tag}>" for tag in MODALITIES]


def train_tokenizer(texts: Iterable[str], prompt_template: str, vocabulary_size: int = 1024) -> Any:
    """Return a transformers fast tokenizer with Qwen's special tokens. `texts` are questions, answers and reasoning."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # Not "special": veRL decodes with skip_special_tokens=True and the tags must survive that.
    bpe.add_tokens([AddedToken(piece, normalized=False) for piece in structure_tokens(prompt_template)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=SPECIAL_TOKENS[3:],
        chat_template=CHAT_TEMPLATE,
    )
