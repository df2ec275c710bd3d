"""The folder of one evaluated model: what is in it, and what was run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.row_file import RowFile
from medix.errors import EvaluationError


class RunFolder:
    """Paths below `--out`, and its `run.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generations = RowFile(path / "generations.jsonl")
        """One row an item: the question, the response or the error."""
        self.refusals = RowFile(path / "refused.jsonl")
        """One row for each row of a source that could not be made a question."""
        self.judgements = RowFile(path / "judgements.jsonl")
        """One row a judged response and judge: votes and verdict, or the error."""
        self.images = path / "images"
        """A small JPEG for each image, named by the hash of the original."""
        self.ledger = path / "ledger.jsonl"

    def settings(self) -> dict[str, Any]:
        """What `generate` and `judge` were asked for.

        Raises:
            EvaluationError: nothing was generated here.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise EvaluationError("a run folder", f"no {file}", "start with `medix eval generate --out`")
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def settings_or_empty(self) -> dict[str, Any]:
        return self.settings() if (self.path / "run.json").is_file() else {}

    def current_rows(self) -> Iterator[dict[str, Any]]:
        """Generation rows of the model, prompt and decoding that `run.json` names, of the items last asked for.

        Items that a task no longer has, or that a smaller `--limit` leaves out, stay in the file and are not scored.
        """
        settings = self.settings()["generate"]
        wanted = {name: keys for name in settings["tasks"] if (keys := self._asked(name)) is not None}
        for row in self.generations.latest():
            if row["run"] == settings["run"] and row["key"] in wanted.get(row["task"], {row["key"]}):
                yield row

    def note_asked(self, task: str, keys: Iterable[str]) -> None:
        """Remember which items a finished pass over a task consisted of."""
        (self.path / "asked").mkdir(parents=True, exist_ok=True)
        self.write_text(f"asked/{task}.txt", "".join(f"{key}\n" for key in keys))

    def _asked(self, task: str) -> set[str] | None:
        file = self.path / "asked" / f"{task}.txt"
        return set(file.read_text(encoding="utf-8").split()) if file.is_file() else None

    def update_settings(self, section: str, values: Mapping[str, Any]) -> None:
        """Write one section of `run.json`; the others stay."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_text(
            "run.json",
            json.dumps({**self.settings_or_empty(), section: dict(values)}, indent=2, ensure_ascii=False) + "\n",
        )

    def write_text(self, name: str, text: str) -> Path:
        """Write a result whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise EvaluationError(f"room for {target}", error.strerror or str(error), "free some, run again") from error
        return target

    def log_stage(self, stage: str, started: float, counts: Mapping[str, Any]) -> None:
        """One line of the time ledger. `started` is of `time.time()`."""
        line = {"stage": stage, "started": round(started, 3), "seconds": round(time.time() - started, 3), **counts}
        with self.ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
