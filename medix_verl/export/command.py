"""`medix export`: a checkpoint becomes a Hugging Face folder, and an exported folder goes to the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from medix.errors import ExportError

DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_OF_AN_EXPORT: Final = ("dtype", "best", "adapter_only", "base", "check_vllm", "overwrite")


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="a run, its global_step_N or actor folder; or an exported folder")],
    out: Annotated[Path | None, typer.Option(help="folder to write")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; as in the checkpoint by default")] = None,
    best: Annotated[bool, typer.Option("--best", help="the run's best step by validation, not its last")] = False,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="a LoRA adapter, not folded")] = False,
    base: Annotated[Path | None, typer.Option(help="folder of the base model; by default the run names it")] = None,
    check_vllm: Annotated[bool, typer.Option("--check-vllm", help="load it in vLLM too, compare tokens")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing folder")] = False,
    push: Annotated[str | None, typer.Option(help="USER/REPO on the hub; private unless --public")] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: a public repository")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files, write and send nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print export.json")] = False,
) -> None:
    """Export a checkpoint to a Hugging Face folder, checked and described in its export.json."""
    from medix_verl.export import push as hub
    from medix_verl.export.checkpoint import RECORD, find_base, locate

    if public and push is None:
        raise ExportError("--public needs a repository.", "Name it: --push USER/REPO.")
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"--dtype is {dtype!r}.", f"Choose one of {', '.join(DTYPES)}.")
    if out is None:
        given = [f"--{name.replace('_', '-')}" for name in _OF_AN_EXPORT if context.params[name]]
        if given or not (checkpoint / RECORD).is_file() or not (push or dry_run):
            raise ExportError(
                f"Without --out, {checkpoint} can only be pushed, if it is an exported folder.",
                f"Name the folder to write with --out{f', or drop {given}' if given else ''}; or --push USER/REPO.",
            )
    if push is not None and not dry_run:
        hub.refuse_what_cannot_be_pushed(push)
    if dry_run:
        plan: dict[str, Any] = {"push": push, "visibility": "public" if public else "private"} if push else {}
        if out is None:
            plan["send"] = hub.files_to_push(checkpoint)
        else:
            found = locate(checkpoint, best)
            plan |= {"checkpoint": str(found.actor), "step": found.step, "out": str(out)}
            plan["base_folder"] = str(find_base(found.run_dir, base).folder)
            plan["read"] = {path.name: path.stat().st_size for path in found.shards}
        return print(json.dumps(plan, indent=2))
    folder = checkpoint
    if out is None:
        hub.refuse_changed_weights(folder)
    else:
        from medix_verl.export.pipeline import export as run

        options = {name: context.params[name] for name in _OF_AN_EXPORT}
        folder = run(checkpoint, out, **options | {"dtype": DTYPES.get(dtype or "")})
    if push is not None:
        print(hub.push(folder, push, public), file=sys.stderr if as_json else sys.stdout)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(record, indent=2))
    elif out is not None:
        print(f"{folder}: exported in {record['seconds']:.0f} s; what was checked is in {RECORD}")
        for name, generation in record.get("generations", {}).items():
            print(f"  {name}: {generation['answer'][:200]!r}")
        for reason in record["not_checked"]:
            print(f"  not checked: {reason}")
