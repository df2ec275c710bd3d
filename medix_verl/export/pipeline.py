"""The whole export: find, build beside the target, ask, describe, take the final name. A failure leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError, ExportError
from medix.files import hold_folder, lookup, mapping_inside
from medix_verl.export import child
from medix_verl.export.card import training_prompt, write_card
from medix_verl.export.checkpoint import RECORD, find_base, locate
from medix_verl.export.generate import compare_tokens

ANSWER_TOKENS: Final = 32
"""An answer's tokens at most: enough to show that the model speaks."""
Report = Callable[[str], None]


def export(
    source: Path,
    out: Path,
    *,
    best: bool = False,
    dtype: str | None = None,
    adapter_only: bool = False,
    overwrite: bool = False,
    base: Path | None = None,
    check_vllm: bool = False,
) -> Path:
    """Export a checkpoint to `out`, which appears whole and checked, or not at all. The command's help has the options.

    Raises:
        ConfigError: the target may not be written.
        ExportError: the checkpoint, or the folder made of it, is not what it should be.
    """
    started = time.monotonic()
    checkpoint, out = locate(source, best), Path(out).absolute()
    model, prompt = find_base(checkpoint.run_dir, base), training_prompt(checkpoint.run_dir)
    refuse_target(out, checkpoint.actor, overwrite)
    limit = lookup(mapping_inside(checkpoint.run_dir, "config.yaml"), "data.max_response_length")
    tokens = min(limit, ANSWER_TOKENS) if isinstance(limit, int) and limit > 0 else ANSWER_TOKENS
    with shown_progress() as report, part_beside(out) as part:
        found = _run(report, child.build, checkpoint, model, part, dtype, adapter_only, prompt, tokens)
        if "weights" not in found:
            raise ExportError(f"The weights were not written: {found['skipped']}.", "Free some memory.")
        not_checked = [*found["weights"].pop("unproved"), found["side_files"].pop("unproved", None)]
        if reason := found.pop("skipped", None):
            not_checked.append(f"that the folder loads and answers: {reason}")
        if check_vllm and not adapter_only and "generations" in found:
            found |= _run(report, child.vllm, part, prompt, tokens, gpus=True)
        if "vllm" in found:
            found["vllm"]["same"] = compare_tokens(found["generations"], found["vllm"].pop("tokens"))
        else:
            reason = found.pop("skipped", "--check-vllm was not given, or there is no whole model")
            not_checked.append(f"that vLLM answers alike: {reason}")
        for answer in found.get("generations", {}).values():
            answer["tokens"] = len(answer["tokens"])
            del answer["margins"]
        record = {
            "format": 2,
            "checkpoint": checkpoint.shown,
            "step": checkpoint.step,
            "base": model.shown,
            **found,
            "not_checked": [reason for reason in not_checked if reason],
            "versions": {name: metadata.version(name) for name in ("medix", "torch", "transformers")},
            "seconds": round(time.monotonic() - started, 2),
        }
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_card(part, record, checkpoint.run_dir, model)
        # An hour may have passed: something else may stand there by now.
        refuse_target(out, checkpoint.actor, overwrite)
        take_final_name(part, out)
    return out


def _run(report: Report, job: Callable[..., None], *arguments: Any, gpus: bool = False) -> dict[str, Any]:
    report("loading vLLM" if job is child.vllm else "loading torch")
    found: dict[str, Any] = {}
    for message in child.run_child(job, *arguments, gpus=gpus):
        report(message["stage"]) if "stage" in message else found.update(message)
    return found


def refuse_target(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Raise ConfigError if `out` may not be written: something stands there, or it lies in or around the checkpoint."""
    if out == checkpoint or checkpoint in out.parents or out in checkpoint.parents:
        raise ConfigError(f"{out} lies inside or around the checkpoint.", "Choose another --out.")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ConfigError(f"{out} exists.", "Choose another --out, or add --overwrite.")
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file()):
        fix = "Remove it yourself, or choose another --out."
        raise ConfigError(f"{out} is no folder that an export wrote (it has no {RECORD}).", fix)


@contextlib.contextmanager
def part_beside(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`, locked, and gone at the end unless it was renamed.

    What a killed export left in it is removed by the next one.
    """
    part = out.with_name(f"{out.name}.part")
    if part.is_symlink() or (part.exists() and not (part / "export.lock").exists()):
        raise ConfigError(f"{part} exists, and no export wrote it.", "Move it, or choose another --out.")
    with hold_folder(part, "export"):
        try:
            for left in part.iterdir():
                if left.name != "export.lock":
                    left.unlink()
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def take_final_name(part: Path, out: Path) -> None:
    """Rename `part` to `out`; an earlier export there is moved aside first and removed last."""
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    (part / "export.lock").unlink()
    aside = out.with_name(f"{out.name}.old-{os.getpid()}")
    if out.is_dir():
        out.rename(aside)
    part.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def shown_progress(every_s: float = 10.0) -> Iterator[Report]:
    """Print on stderr now and then what the export is at. Yields `report(stage)`."""
    started, ended, latest = time.monotonic(), threading.Event(), ["starting"]

    def speak() -> None:
        # A thread, since loading a large model reports nothing for minutes.
        while not ended.wait(every_s):
            print(f"export: {time.monotonic() - started:.0f} s, {latest[0]}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield lambda stage: latest.__setitem__(0, stage)
    finally:
        ended.set()
        thread.join()
