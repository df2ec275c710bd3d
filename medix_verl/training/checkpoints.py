"""Keep the last N checkpoints and the best one. veRL itself keeps the last N only, and forgets them on a resume.

In a step veRL saves first, validates after, and logs last. So the figure of a checkpoint is not known when it is saved,
but always before the next one is: `update` may be called in either order, as often as one likes.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from data_prep.row_schema import open_prepared
from medix.files import write_atomically
from medix.options import CountOrZero, read_options

TRACKER = "latest_checkpointed_iteration.txt"  # veRL writes the step there when all of its checkpoint is on disk
NO_COUNTS: Mapping[str, int] = MappingProxyType({})
_FOLDER, _DOOMED = "global_step_", ".deleting_"


@dataclass(frozen=True)
class CheckpointOptions:
    """The options under `medix.checkpoints`."""

    keep_last: CountOrZero = 3
    """0 keeps all."""
    keep_best: bool = True
    metric: str = "val-*/*/reward/mean@*"
    """Pattern of validation metrics; where several fit (one a data source), their mean counts."""
    mean: Literal["rows", "sources"] = "rows"
    """Whether a data source counts by its held-out rows, as in the released code, or all sources count alike."""
    mode: Literal["max", "min"] = "max"


def read_checkpoint_options(raw: Mapping[str, Any] | None) -> CheckpointOptions:
    """Return the options in the plain mapping under `medix.checkpoints`, or raise a ConfigError."""
    return read_options(CheckpointOptions, raw, "medix.checkpoints")


class Best(NamedTuple):
    """The contents of `best.json`."""

    step: int
    metric: str
    value: float


def validation_values(
    rows: Iterable[Mapping[str, Any]], pattern: str, held_out: Mapping[str, int] = NO_COUNTS
) -> dict[int, float]:
    """Return step -> value from rows `{"step", "data"}`. Steps whose metric is null or not finite are skipped.

    Args:
        held_out: data source -> rows, by which the mean is weighted; a metric `val-aux/SOURCE/reward/mean@1` is of
            SOURCE, and one of no source counts as one row.
    """
    values = {}
    for row in rows:
        found = {key: value for key, value in row["data"].items() if fnmatch.fnmatchcase(key, pattern)}
        if found and all(isinstance(value, (int, float)) and math.isfinite(value) for value in found.values()):
            sources = ["/".join(key.split("/")[1:-2]) for key in found]
            values[int(row["step"])] = fmean(found.values(), [held_out.get(source, 1) for source in sources])
    return values


def keeper_of(config: Any) -> CheckpointKeeper | None:
    """Return the keeper of a run's checkpoints; None where its recipe names another checkpoint callback than ours."""
    if not str(config.trainer.checkpoint_callback_class).endswith(".MedixCheckpointCallback"):
        return None
    files = config.data.val_files
    paths = [Path(str(path)) for path in ([files] if isinstance(files, str) else files or [])]
    options = read_checkpoint_options(config.medix.checkpoints)
    return CheckpointKeeper(Path(str(config.trainer.default_local_dir)), options, paths)


class CheckpointKeeper:
    """Look after the `global_step_N` folders of one run.

    Args:
        val_files: the held-out prepared files, whose rows are counted at the first validation.
    """

    def __init__(self, folder: Path, options: CheckpointOptions, val_files: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.options = options
        self.val_files = val_files

    def values(self, rows: Iterable[Mapping[str, Any]]) -> dict[int, float]:
        """Return step -> the figure by which checkpoints are compared, from rows of `metrics.jsonl`."""
        return validation_values(rows, self.options.metric, self._held_out)

    @cached_property
    def _held_out(self) -> Mapping[str, int]:
        """Data source -> its held-out rows; empty if all sources count alike."""
        counts = Counter[str]()
        for path in self.val_files if self.options.mean == "rows" else ():
            with open_prepared(path) as file:
                counts.update(file.read(columns=["data_source"]).column(0).to_pylist())
        return counts

    def latest(self) -> int | None:
        """Return the step from which a resume would go on, as veRL sees it; None without a checkpoint."""
        try:
            step = int((self.folder / TRACKER).read_text())
        except (OSError, ValueError):
            return None
        return step if self.path(step).is_dir() else None

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"{_FOLDER}{step}"

    def whole(self) -> list[int]:
        """Return the steps with a complete checkpoint up to the latest, ascending. veRL writes `data.pt` last.

        Later steps are left out: a resume from further back has given them up.
        """
        latest = self.latest()
        if latest is None:
            return []
        return [step for step in self._steps() if step <= latest and (self.path(step) / "data.pt").is_file()]

    def best(self) -> Best | None:
        """Return what `best.json` says, if that checkpoint is still there."""
        try:
            best = Best(**json.loads((self.folder / "best.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return best if self.path(best.step).is_dir() else None

    def update(self, values: Mapping[int, float]) -> Best | None:
        """Choose the best whole checkpoint among those with a value, and the one chosen before; write `best.json`.

        Of equals the earliest is best. A value given again, after a resume, replaces the one that was known.
        """
        before = self.best()
        # A value that was reckoned in another way can not be compared.
        metric = self.options.metric + (", sources alike" if self.options.mean == "sources" else "")
        known = {before.step: before.value} if before and before.metric == metric else {}
        known |= {step: values[step] for step in self.whole() if step in values}
        if not known:
            return before
        sign = 1 if self.options.mode == "max" else -1
        step = max(known, key=lambda step: (sign * known[step], -step))
        best = Best(step, metric, known[step])
        if best != before:
            write_atomically(self.folder / "best.json", json.dumps(best._asdict()) + "\n")
        return best

    def prune(self) -> list[int]:
        """Delete what is neither among the last N whole checkpoints nor the best, and return the steps deleted.

        Nothing at or after the newest whole checkpoint is touched, so that there is always one to resume from.
        """
        for doomed in self.folder.glob(f"{_DOOMED}*"):
            shutil.rmtree(doomed, ignore_errors=True)
        whole = self.whole()
        if not whole or self.options.keep_last == 0:
            return []
        best = self.best() if self.options.keep_best else None
        keep = {*whole[-self.options.keep_last :], *([best.step] if best else [])}
        deleted = [step for step in self._steps() if step < whole[-1] and step not in keep]
        for step in deleted:
            # Under its own name a folder that is half gone would pass for a checkpoint after a kill.
            doomed = self.folder / f"{_DOOMED}{_FOLDER}{step}"
            with contextlib.suppress(FileNotFoundError):
                self.path(step).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        return deleted

    def _steps(self) -> list[int]:
        names = [path.name.removeprefix(_FOLDER) for path in self.folder.glob(f"{_FOLDER}*") if path.is_dir()]
        return sorted(int(name) for name in names if name.isdigit())
