"""What `medix prepare` was asked for; all of it enters the manifest and the resume fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix.prompts import TRAINING_PROMPT

MAX_PIXELS: Final = 3_145_728
"""4,013 tokens at 28 px and 3,072 at 32 px: with the paper's 4,352 prompt tokens, room for 339 of text."""


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
    """Rows kept of each source and prepared split."""
    seed: int = 0
    val_fraction: float = 0.0
    drop_contaminated: bool = False
    keep_duplicates: bool = False
    shard_rows: int = 256

    def __post_init__(self) -> None:
        wrong = {
            "There is no source.": not self.sources,
            f"--val-fraction is {self.val_fraction}, not from 0 to below 1.": not 0.0 <= self.val_fraction < 1.0,
            f"--min-pixels {self.min_pixels} and --max-pixels {self.max_pixels} are no range.": not (
                0 <= self.min_pixels <= self.max_pixels
            ),
            "--limit and the shard size have to be 1 or more.": self.shard_rows < 1 or (self.limit or 1) < 1,
            "--max-prompt-tokens needs --model, the folder of the model to train.": (
                self.max_prompt_tokens is not None and self.model is None
            ),
            f"--model {self.model} is no folder.": self.model is not None and not Path(self.model).is_dir(),
        }
        for problem, holds in wrong.items():
            if holds:
                raise ConfigError(problem, "Correct it, e.g. medix prepare sample --out data/demo.")
