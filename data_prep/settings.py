"""What `medix prepare` was asked for; all of it enters the manifest and the resume fingerprint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError
from medix.prompts import TRAINING_PROMPT

MAX_PIXELS: Final = 3_145_728
"""4,013 tokens at 28 px and 3,072 at 32 px: with the paper's 4,352 prompt tokens, room for 339 of text."""
SPLITS: Final = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "val"}
"""A source's split name -> the prepared split; a source may narrow this."""


@dataclass(frozen=True)
class Settings:
    """Everything that changes the bytes that come out."""

    sources: tuple[str, ...]
    against: tuple[str, ...] = ()
    """Evaluation sets to look for in the training rows."""
    model: str | None = None
    """Model folder whose tokenizer, chat template and image processor give `n_tokens`."""
    prompt: str = str(TRAINING_PROMPT)
    max_prompt_tokens: int | None = None
    min_pixels: int = 0
    max_pixels: int = MAX_PIXELS
    limit: int | None = None
    """Records read of each source."""
    seed: int = 0
    val_fraction: float = 0.0
    drop_contaminated: bool = False
    keep_duplicates: bool = False
    shard_rows: int = 256

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("at least one source", "none", "name one, e.g. `medix prepare sample --out data`")
        if not 0.0 <= self.val_fraction < 1.0:
            raise ConfigError("0 <= --val-fraction < 1", str(self.val_fraction), "e.g. --val-fraction 0.02")
        if not 0 <= self.min_pixels <= self.max_pixels:
            raise ConfigError(
                "0 <= --min-pixels <= --max-pixels",
                f"{self.min_pixels} and {self.max_pixels}",
                "the paper's are 262144 and 4194304",
            )
        if self.shard_rows < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigError("--limit and the shard size of 1 or more", f"{self.limit}, {self.shard_rows}", "raise it")
        if self.max_prompt_tokens is not None and self.model is None:
            raise ConfigError("--model beside --max-prompt-tokens", "none", "name the folder of the model to train")
        if self.model is not None and not Path(self.model).is_dir():
            raise ConfigError("--model to be a folder", f"{self.model!r}", "download the model, then name its folder")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
