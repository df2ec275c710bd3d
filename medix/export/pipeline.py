"""The whole export: find, write beside the target, prove, take the final name. On any failure nothing stands there."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from medix.export.contract import RECORD, Check, Checkpoint, ExportOptions, WeightProof
from medix.export.contract import Progress as Report
from medix.export.locate import locate
from medix.export.swap import part_of, refuse_target, take_final_name
from medix.export.weights import export_weights


def export(options: ExportOptions, *, checks: Sequence[Check]) -> Path:
    """Export a checkpoint to `options.out`, which appears whole and proved, or not at all.

    Args:
        checks: run in order on the folder of weights, before it has its final name.

    Raises:
        ConfigError: the target may not be written.
        ExportError: the checkpoint, or the folder made of it, is not what it should be.
    """
    checkpoint = locate(options.checkpoint, best=options.best, last=options.last)
    out = Path(options.out).absolute()
    refuse_target(out, checkpoint.actor, options.overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(out)
    started = time.monotonic()
    try:
        with _bar() as report:
            proof = export_weights(checkpoint, part, dtype=options.dtype, lora=options.lora, progress=report)
            record = _record(checkpoint, proof) | {"weights_s": round(time.monotonic() - started, 2)}
            for index, check in enumerate(checks):
                report(f"checking: {check.__name__.replace('_', ' ')}", index, len(checks))
                record["checks"][check.__name__] = check(part, checkpoint)
        record["seconds"] = round(time.monotonic() - started, 2)
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        take_final_name(part, out)
    except BaseException:  # Ctrl-C included: what is unproved must not stay.
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _record(checkpoint: Checkpoint, proof: WeightProof) -> dict[str, Any]:
    return {
        "format": 1,
        # From the run's folder on: the record goes to the hub, and where the run lay is nobody's business.
        "checkpoint": "/".join(checkpoint.actor.parts[-4:]),
        "step": checkpoint.step,
        "weights": proof.as_dict(),
        "weights_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {name: metadata.version(name) for name in ("medix", "torch", "transformers", "safetensors")},
        "checks": {},
    }


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    """A progress bar on stderr; silent where that is no terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("")

        def report(stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"{stage:<40.40}", completed=done, total=total)

        yield report
