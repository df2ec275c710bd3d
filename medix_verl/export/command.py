"""`medix export`: a checkpoint becomes a Hugging Face folder that is proven to be the same model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from medix.errors import ExportError
from medix_verl.export.contract import RECORD

if TYPE_CHECKING:
    from medix_verl.export.contract import Check, Checkpoint, ExportOptions

DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ANSWER_CHARS: Final = 200


def export(
    checkpoint: Annotated[Path, typer.Argument(help="a run, its global_step_N or actor folder; or an exported folder")],
    out: Annotated[Path | None, typer.Option(help="folder to write")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; as in the checkpoint by default")] = None,
    best: Annotated[bool, typer.Option("--best", help="the run's best step by validation")] = False,
    last: Annotated[bool, typer.Option("--last", help="the run's last step, as by default")] = False,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="a LoRA adapter, not folded")] = False,
    base: Annotated[Path | None, typer.Option(help="folder of the base model; by default the run names it")] = None,
    check_vllm: Annotated[bool, typer.Option("--check-vllm", help="load it in vLLM too, compare tokens")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing folder")] = False,
    push: Annotated[str | None, typer.Option(help="USER/REPO on the hub; private unless --public")] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: a public repository")] = False,
    gguf_ready: Annotated[bool, typer.Option("--gguf-ready", help="check what llama.cpp's converter needs")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files, write and send nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print export.json, or the dry run's list")] = False,
) -> None:
    """Export a checkpoint to a Hugging Face folder, with the proof in its export.json."""
    from medix_verl.export.contract import ExportOptions

    of_an_export = {
        "--best": best,
        "--last": last,
        "--dtype": dtype,
        "--adapter-only": adapter_only,
        "--base": base,
        "--check-vllm": check_vllm,
        "--gguf-ready": gguf_ready,
        "--overwrite": overwrite,
    }
    if public and push is None:
        raise ExportError("--public together with --push", "no --push", "name the repository: --push USER/REPO")
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"--dtype {', '.join(DTYPES)}", repr(dtype), "choose one of them")
    if out is None:
        _refuse_all_but_a_push(checkpoint, push, dry_run, [name for name, value in of_an_export.items() if value])
    if push is not None and not dry_run:
        from medix_verl.export.upload import refuse_what_cannot_be_pushed

        refuse_what_cannot_be_pushed(push)
    if out is not None:
        lora: Any = "adapter" if adapter_only else "fold"
        options = ExportOptions(checkpoint, out, best, last, DTYPES.get(dtype or ""), lora, overwrite, base)
        if dry_run:
            return _show_plan(options, push, public, as_json)
        folder = _export(options, checks_of(base, check_vllm, gguf_ready))
    elif dry_run:
        return _show_files(checkpoint, push, public, as_json)
    else:
        folder = _proved_before(checkpoint)
    if push is not None:
        _push(folder, push, public, quiet=as_json)
    if as_json:
        print((folder / RECORD).read_text(encoding="utf-8").strip())
    elif out is not None:
        _say_what_was_proved(folder)


def _refuse_all_but_a_push(folder: Path, push: str | None, dry_run: bool, of_an_export: list[str]) -> None:
    """Without --out there is nothing to do but to send an exported folder as it is."""
    if not (folder / RECORD).is_file():
        raise ExportError("--out FOLDER", "none", "name the folder to write; an exported folder can only be pushed")
    if push is None and not dry_run:
        raise ExportError("--push USER/REPO for an exported folder", "none", "name the repository, or add --dry-run")
    if of_an_export:
        found = f"{', '.join(of_an_export)} for a folder that is exported already"
        raise ExportError(f"{of_an_export[0]} together with --out", found, "name the checkpoint and --out, or drop it")


def checks_of(base_folder: Path | None, check_vllm: bool, gguf_ready: bool) -> list[Check]:
    """The steps after the weights, in order; `export.json` has each under the function's name."""
    from medix_verl.export.base_model import find_base
    from medix_verl.export.behaviour import BehaviourOptions, prove_behaviour, response_limit
    from medix_verl.export.gguf import check_gguf_ready
    from medix_verl.export.model_card import write_model_card
    from medix_verl.export.side_files import complete_side_files

    commands: list[str] = []

    def side_files(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        return complete_side_files(folder, checkpoint, find_base(checkpoint, base_folder))

    def behaviour(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        options = BehaviourOptions(response_limit(checkpoint), check_vllm)
        return prove_behaviour(folder, checkpoint, find_base(checkpoint, base_folder), options)

    def gguf(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        found = check_gguf_ready(folder)
        commands.extend(found["commands"])
        return found

    def model_card(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        return write_model_card(folder, checkpoint, find_base(checkpoint, base_folder), commands)

    return [side_files, *([gguf] if gguf_ready else []), behaviour, model_card]


def _proved_before(folder: Path) -> Path:
    from medix_verl.export.progress import shown_progress
    from medix_verl.export.reread import refuse_changed_weights

    with shown_progress() as report:
        refuse_changed_weights(folder, report)
    return folder


def _export(options: ExportOptions, checks: list[Check]) -> Path:
    from medix_verl.export.pipeline import export as run_pipeline

    return run_pipeline(options, checks=checks)


def _show_plan(options: ExportOptions, push: str | None, public: bool, as_json: bool) -> None:
    """What an export would read; the weights' size is the shards', which may be of another dtype."""
    from medix_verl.export.base_model import find_base
    from medix_verl.export.locate import locate
    from medix_verl.export.side_files import COPIED

    checkpoint = locate(options.checkpoint, best=options.best, last=options.last)
    base_model = find_base(checkpoint, options.base)
    shards = sorted(checkpoint.actor.glob(f"model_world_size_{checkpoint.world_size}_rank_*.pt"))
    places = [checkpoint.base_files, *([base_model.folder] if base_model.folder else [])]
    beside = {name: next((p / name for p in places if (p / name).is_file()), None) for name in ("config.json", *COPIED)}
    plan = {
        "checkpoint": str(checkpoint.actor),
        "step": checkpoint.step,
        "read": {path.name: path.stat().st_size for path in shards},
        "base": base_model.name,
        "base_folder": str(base_model.folder) if base_model.folder else base_model.why_not,
        "out": str(options.out),
        "write": {name: path.stat().st_size for name, path in beside.items() if path is not None}
        | {"model*.safetensors": None, "README.md": None, RECORD: None},
        **_visibility(push, public),
    }
    _print_plan(plan, as_json)


def _show_files(folder: Path, push: str | None, public: bool, as_json: bool) -> None:
    from medix_verl.export.upload import files_to_push

    _print_plan({"folder": str(folder), "send": dict(files_to_push(folder)), **_visibility(push, public)}, as_json)


def _visibility(push: str | None, public: bool) -> dict[str, Any]:
    return {"push": push, "visibility": "public" if public else "private"} if push else {}


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=2))
        return
    print("dry run: nothing is written or sent, no network is asked")
    for key, value in plan.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, size in value.items():
                print(f"  {'?' if size is None else format(size, ','):>15}  {name}")
        else:
            print(f"{key}: {value}")


def _push(folder: Path, repo: str, public: bool, quiet: bool) -> None:
    from medix_verl.export.upload import push

    def sent(name: str, kept: bool) -> None:
        if not quiet:
            print(f"{'there already' if kept else 'sent':>13}  {name}")

    pushed = push(folder, repo, public, sent)
    for name in [] if quiet else pushed.removed:
        print(f"{'removed there':>13}  {name}")
    print(f"{pushed.url} is {'private' if pushed.private else 'public'}", file=sys.stderr if quiet else sys.stdout)


def _say_what_was_proved(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    checks = record.get("checks", record)
    behaviour = checks.get("behaviour", {})
    print(f"{folder}: exported; the proofs are in {RECORD}")
    for name in ("text", "image"):
        if generation := behaviour.get("generations", {}).get(name):
            end = "" if generation["terminated"] else f" (no end within {generation['tokens']} tokens)"
            print(f"  {name}: {generation['answer'][:ANSWER_CHARS]!r}{end}")
    if sharded := behaviour.get("sharded_model"):
        print(f"  log-probabilities within {sharded['largest_difference']:.2g} nats of the sharded checkpoint's")
    for reason in record.get("not_proved", []):
        print(f"  not proved: {reason}")
