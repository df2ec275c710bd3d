"""The whole export: find, write beside the target, prove, take the final name. On any failure nothing stands there."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from medix_verl.export.contract import RECORD, Check, Checkpoint, ExportOptions, WeightProof
from medix_verl.export.locate import locate
from medix_verl.export.progress import shown_progress
from medix_verl.export.swap import part_beside, refuse_target, take_final_name
from medix_verl.export.weights import export_weights


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
    started = time.monotonic()
    with _ended_by_sigterm(), part_beside(out) as part:
        with shown_progress() as report:
            proof = export_weights(
                checkpoint, part, dtype=options.dtype, lora=options.lora, progress=report, base=options.base
            )
            record = _record(checkpoint, proof) | {"weights_s": round(time.monotonic() - started, 2)}
            for index, check in enumerate(checks):
                report(f"checking: {check.__name__.replace('_', ' ')}", index, len(checks))
                record["checks"][check.__name__] = check(part, checkpoint)
        record["not_proved"] = _not_proved(record)
        record["seconds"] = round(time.monotonic() - started, 2)
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        # An hour may have passed: somebody else's folder may stand there by now.
        refuse_target(out, checkpoint.actor, options.overwrite)
        take_final_name(part, out, options.overwrite)
    return out


def _record(checkpoint: Checkpoint, proof: WeightProof) -> dict[str, Any]:
    return {
        "format": 1,
        "checkpoint": _shown(checkpoint),
        "step": checkpoint.step,
        "weights": proof.as_dict(),
        "weights_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {name: metadata.version(name) for name in ("medix", "torch", "transformers", "safetensors")},
        "checks": {},
    }


def _shown(checkpoint: Checkpoint) -> str:
    """From the run's folder on: the record goes to the hub, and where the run lay is nobody's business."""
    top = checkpoint.run_dir or (checkpoint.actor.parent if checkpoint.step is not None else checkpoint.actor)
    return checkpoint.actor.relative_to(top.parent).as_posix()


def _not_proved(record: dict[str, Any]) -> list[str]:
    """What the weights and the checks say of themselves, in one place."""
    found = list(record["weights"]["unproved"])
    for name, finding in record["checks"].items():
        reasons = finding.get("skipped", {}) | ({name: finding["unproved"]} if "unproved" in finding else {})
        found += [f"{proof.replace('_', ' ')}: {reason}" for proof, reason in reasons.items()]
    return found


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that the part folder and the proofs' processes go too."""
    if threading.current_thread() is not threading.main_thread():  # Only there may a handler be set.
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
